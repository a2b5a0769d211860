"""Extend aiohttp's connection where it does not implement RFC 9112.

Each request gets a response, even if bytes after it in the same packet cannot be parsed or the client has
closed its side meanwhile. Requests that a server must not process are refused before the application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from jobsvc.web.connection.congestion import disable_pacing, peer_of
from jobsvc.web.connection.connection_limits import ConnectionLimits
from jobsvc.web.connection.error_response import error_response, render_error
from jobsvc.web.connection.fair_scheduling import CallbackBatch, YieldingLock
from jobsvc.web.connection.request_input import MAX_HELD_BYTES, RequestInput
from jobsvc.web.connection.response_stream import Buffer, write_parts

RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_HEAD_END: Final = b"\r\n\r\n"


class ConnectionServer(web.Server):
    """Server that creates a Connection for each client."""

    def __init__(
        self,
        handler: RequestHandler,
        *,
        restricted_handler: RequestHandler,
        limits: ConnectionLimits,
        count_unparsed: Callable[[int], None],
        loop: asyncio.AbstractEventLoop,
        **kw: Any,  # noqa: ANN401 - the parent's signature
    ) -> None:
        """`restricted_handler` handles the one request of a connection above the limit.

        `count_unparsed` counts a request that never reaches a route, by the status of its response.
        """
        super().__init__(handler, loop=loop, **kw)
        self.restricted_handler = restricted_handler
        self.limits = limits
        self.count_unparsed = count_unparsed
        self.callbacks = CallbackBatch(loop)
        self.pipelined_lock = YieldingLock()
        """Held for each request that arrived before the previous request on its connection was finished."""

    def __call__(self) -> Connection:
        """Create a connection."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def open_connections(self) -> Sequence[tuple[Connection, asyncio.Transport]]:
        """List the open connections, including those that are about to be closed."""
        return cast(Sequence[tuple[Connection, asyncio.Transport]], tuple(self._connections.items()))

    def connection_count(self) -> int:
        """Return the number of open connections."""
        return len(self._connections)


class Connection(RequestInput):
    """HTTP/1.1 connection; every request gets a task and aiohttp's request object."""

    # Per-connection state
    _jobsvc_server: ConnectionServer
    _jobsvc_restricted = False
    """Whether the connection is above the limit and serves only one request, for a probe."""
    peer_address: str | None = None
    """Address of the client or, behind a proxy, of the proxy."""
    last_range: str | None = None
    """The Range field of the last download."""

    def __init__(self, server: ConnectionServer, **kw: Any) -> None:  # noqa: ANN401 - the parent's signature
        super().__init__(server, **kw)
        self._jobsvc_server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set up a new connection: peer address, pacing and connection limit."""
        super().connection_made(transport)
        if (peer := peer_of(transport)) is not None:
            self._cache["peername"], self.peer_address = peer, str(peer[0])
        disable_pacing(transport)
        server = self._jobsvc_server
        server.limits.admit(self, cast(asyncio.Transport, transport), server.connection_count())

    def connection_lost(self, exc: BaseException | None) -> None:
        """Parse the last bytes received, and end the connection."""
        if self._buffer_paused:  # no client is left to respond to
            self._jobsvc_received = b""
        self._parse_received()
        self._jobsvc_server.limits.forget(self)
        super().connection_lost(exc)
        self._jobsvc_received = b""

    # Input

    def data_received(self, data: bytes) -> None:
        """Buffer `data` and parse it in a callback that all connections share.

        The bytes of many connections are read before their requests are handled. By then, the task that
        handled the previous request waits for the next one. aiohttp itself passes b"" to resume parsing of
        data that its parser has buffered; that goes to the parser at once.
        """
        if not data:
            self._process_piece(data)
            if self._jobsvc_received:
                self._schedule_parse()
            return
        self._jobsvc_received += data
        if len(self._jobsvc_received) == len(data):
            self._schedule_parse()
        elif self._buffer_paused and len(self._jobsvc_received) >= MAX_HELD_BYTES:
            self._pause_transport_reading()

    def _schedule_parse(self) -> None:
        # The cost of these bytes is unknown.
        self._jobsvc_server.callbacks.call_costly(self._parse_received)

    def eof_received(self) -> bool:  # type: ignore[override] # as the parent's
        """Keep the connection open for the responses that are due."""
        self._parse_received()
        self._jobsvc_input_ended = self._jobsvc_half_closed = bool(self._jobsvc_received)
        return self._jobsvc_half_closed or super().eof_received()

    def _parse_received(self) -> None:
        """Parse the received bytes; close the connection on an exception, which would leave it hanging."""
        data, self._jobsvc_received = self._jobsvc_received, b""
        try:
            if data:
                self._parse(data)
        except Exception as exc:  # noqa: BLE001 - a bug, and no response will follow
            self.log_exception("Unhandled exception", exc_info=exc)
            self.force_close()
        if self._jobsvc_received:
            return
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        if self._jobsvc_input_ended:
            self._end_input()

    def _end_input(self) -> None:
        """Process the client's end of input, after the bytes that were held before it."""
        self._jobsvc_input_ended = False
        if not super().eof_received() and self.transport is not None:
            self.transport.close()

    def _parse(self, data: bytes) -> None:
        """Parse requests one at a time: aiohttp drops the requests before one that it cannot parse."""
        # Most packets contain exactly one head.
        if data.find(_HEAD_END) == len(data) - len(_HEAD_END) and self._expects_head():
            self._process_piece(data)
        else:
            self._split_and_process(data)

    def _expects_head(self) -> bool:
        return (
            not self._messages
            and not self._jobsvc_partial_head
            and not self._reading_paused
            and self._jobsvc_body.is_eof()
        )

    def _process_piece(self, data: bytes, *, to_task: bool = False) -> None:
        """Parse a piece, and have the first request in it handled; `to_task`: by the task in any case.

        No request is started until the client has read enough of the previous response: `resume_writing`.
        """
        if self._jobsvc_last_request and self._done_reading:
            return
        waiter, self._waiter = self._waiter, None
        try:
            valid = self._feed_parser(data)
        finally:
            self._waiter = waiter
        if waiter is None or waiter.done() or not self._messages or self._paused:
            return
        # The task that waits for a request is not woken for one that already has its response.
        if to_task or not (valid and self._respond_at_once(data)):
            self._wake_task(waiter)

    def _respond_at_once(self, data: bytes) -> bool:  # noqa: ARG002 - FastConnection uses it
        """Respond to the parsed request without the task, if possible; return whether it did."""
        return False

    def _wake_task(self, waiter: asyncio.Future[None]) -> None:
        """Wake the task to handle a request, unless the client is gone: aiohttp fails then."""
        if self.transport is not None and not self.transport.is_closing():
            waiter.set_result(None)
            self._jobsvc_server.callbacks.count_started_task()

    def _resume_reading_if_drained(self) -> None:
        self._parse_received()

    # Responses

    def write_soon(self, data: bytes) -> None:
        """Write a small response."""
        if self.transport is not None:
            self.transport.write(data)

    def write_parts(self, parts: Iterable[Buffer]) -> None:
        """Write a large response, given as its head and one or more parts of its body."""
        if self.transport is not None:
            write_parts(self.transport, parts)

    def has_unsent_bytes(self) -> bool:
        """Return whether the kernel has not yet accepted everything that was written."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    @property
    def write_paused(self) -> bool:
        """Whether the client has to accept data before more is written."""
        return self._paused

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Finish a response; if the next request has already been received, yield to other connections."""
        finishing = super().finish_response(request, resp, start_time)
        return self._finish_pipelined(finishing) if self._messages or self._jobsvc_received else finishing

    async def _finish_pipelined(
        self, finishing: Coroutine[Any, Any, tuple[web.StreamResponse, bool]]
    ) -> tuple[web.StreamResponse, bool]:
        finished = await finishing
        async with self._jobsvc_server.pipelined_lock:
            return finished

    def resume_writing(self) -> None:
        """Resume the task that waited for the client to read, then handle requests received meanwhile."""
        super().resume_writing()
        waiter = self._waiter
        if self._messages and waiter is not None and not waiter.done():
            self._wake_task(waiter)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - the parent's signature
    ) -> web.StreamResponse:
        """Return a problem response to an unparsable request or an unhandled exception.

        Raises ConnectionError if a response has already been started: the error cannot be sent then.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("the response has already started, so the error cannot be sent")
        self._jobsvc_server.count_unparsed(status)
        response = error_response(status, exc, request.remote)
        if self._jobsvc_omit_error_body and isinstance(exc, HttpProcessingError):
            response.body = None
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401 - the parent's signature
        """Log an exception, except for an unreadable rest of a body: its sender already has a response."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    # Timeouts, limits and shutdown

    @property
    def requests_received(self) -> bool:
        """Whether a request was received."""
        return self._request_count > 0

    def idle_since(self) -> float | None:
        """Return when the wait for a request began (loop time); None while one is handled."""
        waiter = self._waiter
        if waiter is None or waiter.done() or self._messages or self._jobsvc_received:
            return None
        return self._next_keepalive_close_time - self._keepalive_timeout

    def time_out_head(self) -> None:
        """Send a 408 for an unfinished request head, and close."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(render_error("request-timeout", "The request head did not arrive in time."))
        self.force_close()

    def restrict(self) -> None:
        """Serve only one request, and only if it is for a probe."""
        self._jobsvc_restricted = True
        self._request_handler = self._jobsvc_server.restricted_handler
        self._lingering_time = 0.0

    def close(self) -> None:
        """Respond to the requests received so far, and ignore what is received later."""
        self._parse_received()
        super().close()


def connection_of(request: web.BaseRequest) -> Connection:
    """Return the connection of a request."""
    return cast(Connection, request.protocol)
