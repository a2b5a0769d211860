"""Close a connection in stages after its last request (RFC 9112, section 9.6).

Closing a connection while bytes from the client are in transit resets it, and the client can lose the
response. The service therefore closes its own side first, and discards input until the client has closed too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from aiohttp import hdrs, web

from jobsvc.web.connection.half_close import HalfClosing

LINGER_S: Final = 2.0
MAX_DISCARDED_BYTES: Final = 1024 * 1024
"""Bytes of a body without a reader that are read and discarded, at most, to keep the connection open."""
MAX_DISCARDED_CHUNKED_BYTES: Final = 64 * 1024
"""The same for a chunked body: a chunk can be one byte long, and costs as much as a large one."""


class LingeringClose(HalfClosing):
    """Connection that closes in stages."""

    _last_request = False
    """Whether the connection closes after the response to the last request that was parsed."""
    answered_at: float | None = None
    """When the last response was sent (loop time), while further input is read and discarded; else None."""
    _client_closed: asyncio.Future[None] | None = None
    """Created when the service closes its own side; done when the client has closed too."""

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Finish a response; then read the rest of the request's body, or close in stages."""
        finish = super().finish_response(request, resp, start_time)
        if self._last_request or not request.content.is_eof():
            return self._finish_reading(request, finish)
        return finish

    def eof_received(self) -> bool:  # type: ignore[override] # as the parent's
        """Stop waiting for the client to close its side."""
        self._stop_lingering()
        return super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop waiting for the client to close its side."""
        self._stop_lingering()
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - the parent's signature
        """Stop waiting for the client to close its side."""
        self._stop_lingering()
        await super().shutdown(timeout)

    @property
    def _done_reading(self) -> bool:
        """Whether further input is discarded: the last request is complete, or its response is sent."""
        return self._last_request and (self._client_closed is not None or self._body.is_eof())

    async def _finish_reading(
        self, request: web.BaseRequest, finish: Coroutine[Any, Any, tuple[web.StreamResponse, bool]]
    ) -> tuple[web.StreamResponse, bool]:
        finished = await finish
        self.answered_at = self._loop.time()
        if not self._last_request and not await _discarded(request, self._lingering_time):
            self._last_request = True
            self.close()
        if self._last_request and self._answered >= self._request_count:
            await self._linger()
        self.answered_at = None
        return finished

    async def _linger(self) -> None:
        if self.transport is None or self.transport.is_closing() or self._half_closed:
            return
        try:
            self.transport.write_eof()
        except OSError:  # the client has reset the connection
            return
        self._client_closed = self._loop.create_future()
        self._resume_transport_reading()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await self._client_closed
        if not self._body.is_eof():  # or aiohttp would wait for the rest of it
            self._body.feed_eof()

    def _stop_lingering(self) -> None:
        if self._client_closed is not None and not self._client_closed.done():
            self._client_closed.set_result(None)


async def _discarded(request: web.BaseRequest, timeout_s: float) -> bool:
    """Read and discard a body; return whether its end was reached."""
    body, chunked = request.content, hdrs.TRANSFER_ENCODING in request.headers
    left = MAX_DISCARDED_CHUNKED_BYTES if chunked else MAX_DISCARDED_BYTES
    with suppress(TimeoutError, web.RequestPayloadError):
        async with asyncio.timeout(timeout_s):
            while not body.is_eof() and left > 0:
                left -= len(await body.readany())
    return body.is_eof()
