"""Close a connection without losing a response (RFC 9112, section 9.6).

A client that has closed its side can still read: each complete request gets a response, and the last response
ends the connection. Closing a connection while bytes from the client are in transit resets it, and the client
can lose the response. The service therefore closes its own side first, and discards input until the client
has closed too.

When the service stops, a connection that waits for a request is not closed at once: the request may be in
transit, and some clients do not repeat it. It has DRAIN_TIMEOUT_S for one more request, whose response says
that the connection closes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

DRAIN_TIMEOUT_S: Final = 0.5
"""Seconds that a stopping service waits for requests on open connections."""
DRAIN_CHECK_INTERVAL_S: Final = 0.01
LINGER_TIMEOUT_S: Final = 2.0
"""Seconds for the client to close its side after the service."""
MAX_DISCARDED_BYTES: Final = 1024 * 1024
"""Bytes of a body without a reader that are read and discarded, at most, to keep the connection open."""
MAX_DISCARDED_CHUNKED_BYTES: Final = 64 * 1024
"""The same for a chunked body: a chunk can be one byte long, and costs as much as a large one."""


class ClosingConnection(web.RequestHandler):
    """Connection that closes in stages."""

    # Per-connection state
    _jobsvc_response_count = 0
    """Requests that have their response; `_request_count` counts those received."""
    _jobsvc_last_request = False
    """Whether the connection closes after the response to the last request that was parsed."""
    _jobsvc_next_is_last = False
    """Whether it closes after the response to the next request that is parsed."""
    _jobsvc_half_closed = False
    """Whether the client has closed its side, and waits for the responses that are due."""
    _jobsvc_client_closed: asyncio.Future[None] | None = None
    """Created when the service closes its own side; done when the client has closed too."""
    answered_at: float | None = None
    """When the last response was sent (loop time), while further input is read and discarded; else None."""

    # Per-request state
    _jobsvc_body: StreamReader = EMPTY_PAYLOAD
    """Body of the last request that was parsed."""

    def drain(self, *, is_last_call: bool = False) -> bool:
        """Close after a response that says so: the one that is due, or the next one if its head is sent.

        Return whether the next request is awaited. With the last call, close after the response in progress
        in any case.
        """
        if self._jobsvc_last_request:
            return False
        current = self._current_request
        if self._messages:
            message, body = self._messages[-1]
            if isinstance(message, RawRequestMessage):
                self._messages[-1] = message._replace(should_close=True), body
        elif current is not None and (is_last_call or not current.writer.output_size):
            current._message = current._message._replace(should_close=True)  # noqa: SLF001 - the same protocol
        else:
            self._jobsvc_next_is_last = True
            return True
        self._jobsvc_last_request = True
        return False

    @property
    def half_closed(self) -> bool:
        """Whether the client has closed its side: it is gone, or waits for the responses that are due."""
        return self._jobsvc_half_closed

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Finish a response; then read the rest of the request's body, or close in stages."""
        self._jobsvc_response_count += 1
        finish = self._finish_half_closed if self._jobsvc_half_closed else super().finish_response
        finishing = finish(request, resp, start_time)
        if self._jobsvc_last_request or not request.content.is_eof():
            return self._finish_reading(request, finishing)
        return finishing

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio uses the result, aiohttp returns None
        """Keep the connection open for the responses that are due."""
        self._stop_lingering()
        self._jobsvc_half_closed = self._has_responses_due()
        if self._jobsvc_half_closed and not self._jobsvc_body.is_eof():
            self._jobsvc_body.set_exception(web.RequestPayloadError("the request body is incomplete"))
        return self._jobsvc_half_closed

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
        return self._jobsvc_last_request and (
            self._jobsvc_client_closed is not None or self._jobsvc_body.is_eof()
        )

    def _has_responses_due(self) -> bool:
        """Return whether a complete request still needs its response.

        False while a response without a length is being sent: it ends when its client closes.
        """
        current = self._current_request
        if current is not None and current.writer.output_size > 0 and current.writer.length is None:
            return False
        return self._request_count - (not self._jobsvc_body.is_eof()) > self._jobsvc_response_count

    async def _finish_half_closed(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Finish a response to a client that has closed its side; the last one ends the connection."""
        if self._is_last_response() and not resp.prepared:
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if self._is_last_response():
            self.close()
        return finished

    def _is_last_response(self) -> bool:
        return self._jobsvc_half_closed and self._jobsvc_response_count >= self._request_count

    async def _finish_reading(
        self, request: web.BaseRequest, finish: Coroutine[Any, Any, tuple[web.StreamResponse, bool]]
    ) -> tuple[web.StreamResponse, bool]:
        finished = await finish
        self.answered_at = self._loop.time()
        if not self._jobsvc_last_request and not await _discard_body(request, self._lingering_time):
            self._jobsvc_last_request = True
            self.close()
        if self._jobsvc_last_request and self._jobsvc_response_count >= self._request_count:
            await self._linger()
        self.answered_at = None
        return finished

    async def _linger(self) -> None:
        """Close this side, and wait until the client has closed its own."""
        if self.transport is None or self.transport.is_closing() or self._jobsvc_half_closed:
            return
        try:
            self.transport.write_eof()
        except OSError:  # the client has reset the connection
            return
        self._jobsvc_client_closed = self._loop.create_future()
        self._resume_transport_reading()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_TIMEOUT_S):
                await self._jobsvc_client_closed
        if not self._jobsvc_body.is_eof():  # or aiohttp would wait for the rest of it
            self._jobsvc_body.feed_eof()

    def _stop_lingering(self) -> None:
        if self._jobsvc_client_closed is not None and not self._jobsvc_client_closed.done():
            self._jobsvc_client_closed.set_result(None)


async def drain(connections: Callable[[], Sequence[tuple[ClosingConnection, object]]]) -> None:
    """Drain all connections, those included that are accepted meanwhile; take at most DRAIN_TIMEOUT_S."""
    for _ in range(round(DRAIN_TIMEOUT_S / DRAIN_CHECK_INTERVAL_S)):
        if sum(connection.drain() for connection, _ in connections()) == 0:
            return
        await asyncio.sleep(DRAIN_CHECK_INTERVAL_S)
    for connection, _ in connections():
        connection.drain(is_last_call=True)


async def _discard_body(request: web.BaseRequest, timeout_s: float) -> bool:
    """Read and discard a body; return whether its end was reached."""
    body, chunked = request.content, hdrs.TRANSFER_ENCODING in request.headers
    remaining = MAX_DISCARDED_CHUNKED_BYTES if chunked else MAX_DISCARDED_BYTES
    with suppress(TimeoutError, web.RequestPayloadError):
        async with asyncio.timeout(timeout_s):
            while not body.is_eof() and remaining > 0:
                remaining -= len(await body.readany())
    return body.is_eof()
