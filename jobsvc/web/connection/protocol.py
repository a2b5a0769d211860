"""Extend aiohttp's connection where it does not implement RFC 9112, and add the fast path.

Each request gets a response, even if bytes after it in the same packet cannot be parsed or the client has
closed its side meanwhile. Requests that a server must not process are refused before the application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, cast

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import StreamWriter
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from jobsvc.web.connection.callback_batch import CallbackBatch
from jobsvc.web.connection.congestion import disable_pacing
from jobsvc.web.connection.connection_limits import ConnectionLimits
from jobsvc.web.connection.error_response import render_error
from jobsvc.web.connection.head_cache import CachedHead
from jobsvc.web.connection.request_input import MAX_HELD_BYTES, RequestInput
from jobsvc.web.connection.turns import HeavyWorkTurns

_HEAD_END: Final = b"\r\n\r\n"


class FastPathServer(web.Server):
    """Server whose connections respond without a task to requests that need no wait."""

    try_fast: Callable[[Connection, RawRequestMessage, str], bool]
    """Responds to a plain GET of a target at once; returns False if that would need a wait."""
    count_unparsed: Callable[[int], None]
    """Counts a request that never reaches a route, by the status of its response."""
    limits: ConnectionLimits
    restricted_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    """Handles the one request of a connection above the limit."""

    def __init__(self, *args: Any, loop: asyncio.AbstractEventLoop, **kw: Any) -> None:  # noqa: ANN401 - the parent's signature
        super().__init__(*args, loop=loop, **kw)
        self.parsing = CallbackBatch(loop)
        self.pipelined = HeavyWorkTurns()
        """A turn for each request that arrived before the previous request on its connection was finished."""

    def open_connections(self) -> Sequence[tuple[Connection, asyncio.Transport]]:
        """List the open connections, including those that are about to be closed."""
        return cast(Sequence[tuple[Connection, asyncio.Transport]], tuple(self._connections.items()))

    def connection_count(self) -> int:
        """Return the number of open connections."""
        return len(self._connections)


class Connection(RequestInput):
    """HTTP/1.1 connection that responds to requests on the fast path if possible."""

    _restricted = False
    """Whether the connection is above the limit and serves only one request, for a probe."""
    _server: FastPathServer
    _answering = False
    _unsent = b""
    peer_address: str | None = None
    """Address of the client or, behind a proxy, of the proxy."""
    last_range: str | None = None
    """The Range field of the last download."""
    _familiar: CachedHead | None = None
    """The last request if the fast path responded to it and nothing was parsed since; else None."""

    def __init__(self, server: FastPathServer, **kw: Any) -> None:  # noqa: ANN401 - the parent's signature
        super().__init__(server, **kw)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set up a new connection: peer address, pacing and connection limit."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.peer_address = str(peer[0]) if isinstance(peer, tuple) else None
        disable_pacing(transport)
        self._server.limits.admit(self, cast(asyncio.Transport, transport), self._server.connection_count())

    def data_received(self, data: bytes) -> None:
        """Buffer `data` and parse it in a callback that all connections share.

        The bytes of many connections are read before their requests are handled. By then, the task that
        handled the previous request waits for the next one. aiohttp itself passes b"" to resume parsing of
        data that its parser has buffered; that goes to the parser at once.
        """
        if not data:
            self._feed(data)
            self._parse_later()
            return
        self._received += data
        if len(self._received) == len(data):
            parsing = self._server.parsing
            # The next request of a polling client is cheap; the cost of any other bytes is unknown.
            (parsing.call_later_in_turn if self._familiar is None else parsing.call_soon)(self._parse)
        elif self._buffer_paused and len(self._received) >= MAX_HELD_BYTES:
            self._pause_transport_reading()

    def _parse_later(self) -> None:
        if self._received:
            self._server.parsing.call_later_in_turn(self._parse)

    def _resume_reading_if_drained(self) -> None:
        self._parse()

    def _parse(self) -> None:
        """Parse the received bytes; close the connection on an exception, which would leave it hanging."""
        data, self._received = self._received, b""
        try:
            if data:
                self._parse_each(data)
        except Exception as fault:  # noqa: BLE001 - a bug, and no response will follow
            self.log_exception("Unhandled exception", exc_info=fault)
            self.force_close()
        if self._received:
            return
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        if self._input_ended:
            self._end_input()

    def _end_input(self) -> None:
        """Process the client's end of input, after the bytes that were held before it."""
        self._input_ended = False
        if not super().eof_received() and self.transport is not None:
            self.transport.close()

    def _parse_each(self, data: bytes) -> None:
        """Parse requests one at a time: aiohttp drops the requests before one that it cannot parse."""
        target = self._cached_head_path(data)
        if target is not None and self._try_fast_cached(target):
            return
        # Most packets contain exactly one head.
        if data.find(_HEAD_END) == len(data) - len(_HEAD_END) and self._expects_head():
            self._feed(data, tried=target is not None)
        else:
            self._parse_pieces(data)

    def _expects_head(self) -> bool:
        return not self._messages and not self._head and not self._reading_paused and self._body.is_eof()

    def _feed(self, data: bytes, *, tried: bool = False) -> None:
        """Parse a piece, and respond to the request in it on the fast path or queue it.

        `tried`: whether the fast path has already declined this request.
        """
        if self._last_request and self._done_reading:
            return
        self._familiar = None
        idle, self._waiter = self._waiter, None
        try:
            sound = self._parsed(data)
        finally:
            self._waiter = idle
        # No request is started until the client has read enough of the previous response: `resume_writing`.
        if idle is None or idle.done() or not self._messages or self._paused:
            return
        # The task that waits for a request is not woken for one that the fast path handles.
        if tried or not (sound and self._try_fast_parsed(data)):
            self._wake(idle)

    def _wake(self, idle: asyncio.Future[None]) -> None:
        """Wake the task to handle a request, unless the client is gone: aiohttp fails then."""
        if self.transport is not None and not self.transport.is_closing():
            idle.set_result(None)
            self._server.parsing.count_started_task()

    def _try_fast_parsed(self, data: bytes) -> bool:
        """Respond to the parsed request on the fast path if it is the only one; return whether it did.

        A task for each request, with its wake-ups, costs as much as a status response.
        """
        parser, (message, body) = self._parser, self._messages[0]
        if len(self._messages) > 1 or parser is None:
            return False
        if isinstance(message, _ErrInfo) or body is not EMPTY_PAYLOAD or not _plain(message):
            return False
        if not self._try_fast(message, message.path):
            return False
        self._messages.popleft()
        parser.message_consumed()
        self._familiar = CachedHead(message, data)
        return True

    def _cached_head_path(self, data: bytes) -> str | None:
        """Return the target of a request that differs from the last one only in its target.

        Returns None for any other request, and if the connection is not idle or is closing.
        """
        last, idle = self._familiar, self._waiter
        if last is None or idle is None or idle.done() or self._paused or self._force_close or self._close:
            return None
        return last.match_path(data)

    def _try_fast_cached(self, target: str) -> bool:
        """Respond to such a request on the fast path; return whether it did."""
        if self._familiar is None or not self._try_fast(self._familiar.message, target):
            return False
        self._request_count += 1
        return True

    def _try_fast(self, message: RawRequestMessage, target: str) -> bool:
        # Without its keep-alive timer, nothing would end the connection.
        if self._keepalive_handle is None or self._half_closed or self._restricted:
            return False
        # A write to a closing transport succeeds, but the client does not get it.
        if self.transport is None or self.transport.is_closing():
            return False
        if self._unsent:
            self._flush()
        self._answering = True
        try:
            if not self._server.try_fast(self, message, target):
                return False
        finally:
            self._answering = False
        self._server.requests_count += 1
        self._answered += 1
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return True

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Finish a response; if the next request has already been received, it waits for its turn."""
        finish = super().finish_response(request, resp, start_time)
        return self._take_turn(finish) if self._messages or self._received else finish

    async def _take_turn(
        self, finish: Coroutine[Any, Any, tuple[web.StreamResponse, bool]]
    ) -> tuple[web.StreamResponse, bool]:
        finished = await finish
        async with self._server.pipelined.take():
            return finished

    @property
    def requests_received(self) -> bool:
        """Whether a request was received."""
        return self._request_count > 0

    def idle_since(self) -> float | None:
        """Return when the wait for a request began (loop time); None while one is handled."""
        idle = self._waiter
        if idle is None or idle.done() or self._messages or self._received or self._unsent:
            return None
        return self._next_keepalive_close_time - self._keepalive_timeout

    def time_out_head(self) -> None:
        """Send a 408 for an unfinished request head, and close."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(render_error("request-timeout", "The request head did not arrive in time."))
        self.force_close()

    def restrict(self) -> None:
        """Serve only one request, and only if it is for a probe."""
        self._restricted = True
        self._request_handler = self._server.restricted_handler
        self._lingering_time = 0.0

    def request_of(self, message: RawRequestMessage) -> web.BaseRequest:
        """Create a request for a plain GET on the fast path; its writer is only used for `drain`.

        Raises ConnectionResetError if the connection is lost.
        """
        make, task = self._request_factory, self._task_handler
        if make is None or task is None:
            raise ConnectionResetError("the connection is lost")
        return make(message, EMPTY_PAYLOAD, self, StreamWriter(self, self._loop), task)

    def write_soon(self, data: bytes) -> None:
        """Write a small response at once or, on the fast path, together with those of other connections.

        Waking a client for each response separately costs as much as the responses.
        """
        if self._answering:
            self._unsent = data
            self._server.parsing.at_end(self._flush)
        elif self.transport is not None:
            self.transport.write(data)

    def _flush(self) -> None:
        data, self._unsent = self._unsent, b""
        if data and self.transport is not None:
            self.transport.write(data)

    def resume_writing(self) -> None:
        """Resume the task that waited for the client to read, then handle requests received meanwhile."""
        super().resume_writing()
        idle = self._waiter
        if self._messages and idle is not None and not idle.done():
            self._wake(idle)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Parse the last bytes received, and end the connection."""
        if self._buffer_paused:  # nobody is left to respond to
            self._received = b""
        self._parse()
        self._server.limits.forget(self)
        super().connection_lost(exc)
        self._received = b""

    def close(self) -> None:
        """Respond to the requests received so far, and ignore what is received later."""
        self._parse()
        super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - the parent's signature
        """Send the responses that are not yet written, then end the connection."""
        self._flush()
        await super().shutdown(timeout)

    def eof_received(self) -> bool:  # type: ignore[override] # as the parent's
        """Keep the connection open for the responses that are due."""
        self._parse()
        self._flush()
        self._input_ended = self._half_closed = bool(self._received)
        return self._half_closed or super().eof_received()


def _plain(message: RawRequestMessage) -> bool:
    return (
        message.method == hdrs.METH_GET
        and message.version is HttpVersion11
        and not message.should_close
        and not message.upgrade
        and hdrs.EXPECT not in message.headers
    )
