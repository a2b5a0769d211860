"""A connection closes in stages after its last request (RFC 9112, section 9.6).

A connection that is closed while bytes of the client are on their way is reset, and the client may lose the
answer. So the service closes its own side first, and drops what comes until the client has closed its side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from aiohttp import web

from jobsvc.web.half_closing import HalfClosing

LINGER_S: Final = 2.0


class LingeringClose(HalfClosing):
    """One connection."""

    _last_request = False
    """Whether the connection closes after the answer to the last request that was read."""
    _client_closed: asyncio.Future[None] | None = None
    """Waited for once the service has closed its own side."""

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Finish an answer; close in stages after the last one."""
        finish = super().finish_response(request, resp, start_time)
        return self._finish_last(finish) if self._last_request else finish

    def eof_received(self) -> bool:  # type: ignore[override] # as the parent's
        """Stop waiting for the client."""
        self._stop_lingering()
        return super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop waiting for the client."""
        self._stop_lingering()
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - the parent's signature
        """Stop waiting for the client."""
        self._stop_lingering()
        await super().shutdown(timeout)

    @property
    def _done_reading(self) -> bool:
        """Whether bytes that come are dropped: the last request has come whole, or its answer is sent."""
        return self._last_request and (self._client_closed is not None or self._body.is_eof())

    async def _finish_last(
        self, finish: Coroutine[Any, Any, tuple[web.StreamResponse, bool]]
    ) -> tuple[web.StreamResponse, bool]:
        finished = await finish
        if self._answered >= self._request_count:
            await self._linger()
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
