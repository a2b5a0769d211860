"""A connection as RFC 9112 has it, where aiohttp's falls short of that.

Each request has its answer, also where what came behind it in the same packet can't be read, and where the
client has closed its side meanwhile. What a server must not take as it is, is refused before the application.
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
    """A server that knows what needs no wait."""

    try_fast: Callable[[Connection, RawRequestMessage, str], bool]
    """Answers a plain GET of a target here and now, where that takes no wait."""
    count_unparsed: Callable[[int], None]
    """Counts a request with this status that never reaches a route."""
    limits: ConnectionLimits
    restricted_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    """Handles the one request of a connection above the limit."""

    def __init__(self, *args: Any, loop: asyncio.AbstractEventLoop, **kw: Any) -> None:  # noqa: ANN401 - the parent's signature
        super().__init__(*args, loop=loop, **kw)
        self.parsing = CallbackBatch(loop)
        self.pipelined = HeavyWorkTurns()
        """Taken by each request that waited behind another one of its connection."""

    def open_connections(self) -> Sequence[tuple[Connection, asyncio.Transport]]:
        """List the connections, those included that are about to be closed."""
        return cast(Sequence[tuple[Connection, asyncio.Transport]], tuple(self._connections.items()))

    def connection_count(self) -> int:
        """Return how many connections are open."""
        return len(self._connections)


class Connection(RequestInput):
    """One connection."""

    _restricted = False
    """Whether it is above the limit, and serves no more than a probe."""
    _server: FastPathServer
    _answering = False
    _unsent = b""
    peer_address: str | None = None
    """The client's or the proxy's."""
    last_range: str | None = None
    """The Range field of the last download."""
    _familiar: CachedHead | None = None
    """The last request, where it was answered at once and all is answered."""

    def __init__(self, server: FastPathServer, **kw: Any) -> None:  # noqa: ANN401 - the parent's signature
        super().__init__(server, **kw)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a client on."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.peer_address = str(peer[0]) if isinstance(peer, tuple) else None
        disable_pacing(transport)
        self._server.limits.admit(self, cast(asyncio.Transport, transport), self._server.connection_count())

    def data_received(self, data: bytes) -> None:
        """Take what came; many connections' bytes are read first, and then their requests answered.

        By then, too, who answered the request before is done with it and waits for the next. Nothing comes
        from aiohttp itself, for the parser to go on with what it has.
        """
        if not data:
            self._feed(data)
            self._parse_later()
            return
        self._received += data
        if len(self._received) == len(data):
            parsing = self._server.parsing
            # The next request of who polls is cheap; what any other bytes cost is not known.
            (parsing.call_later_in_turn if self._familiar is None else parsing.call_soon)(self._parse)
        elif self._buffer_paused and len(self._received) >= MAX_HELD_BYTES:
            self._pause_transport_reading()

    def _parse_later(self) -> None:
        if self._received:
            self._server.parsing.call_later_in_turn(self._parse)

    def _resume_reading_if_drained(self) -> None:
        self._parse()

    def _parse(self) -> None:
        """Have what came parsed; whoever calls this would leave the connection hanging where it raised."""
        data, self._received = self._received, b""
        try:
            if data:
                self._parse_each(data)
        except Exception as fault:  # noqa: BLE001 - a fault of ours, and no answer to come
            self.log_exception("Unhandled exception", exc_info=fault)
            self.force_close()
        if self._received:
            return
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        if self._input_ended:
            self._end_input()

    def _end_input(self) -> None:
        """See to the end of what the client sends, behind what was held."""
        self._input_ended = False
        if not super().eof_received() and self.transport is not None:
            self.transport.close()

    def _parse_each(self, data: bytes) -> None:
        """Have requests parsed one at a time."""
        target = self._cached_head_path(data)
        if target is not None and self._try_fast_cached(target):
            return
        # A packet is most often one head.
        if data.find(_HEAD_END) == len(data) - len(_HEAD_END) and self._expects_head():
            self._feed(data, tried=target is not None)
        else:
            self._parse_pieces(data)

    def _expects_head(self) -> bool:
        return not self._messages and not self._head and not self._reading_paused and self._body.is_eof()

    def _feed(self, data: bytes, *, tried: bool = False) -> None:
        """Have a piece parsed, and the request in it answered or queued.

        `tried`: whether to answer it at once has been in vain.
        """
        if self._last_request and self._done_reading:
            return
        self._familiar = None
        idle, self._waiter = self._waiter, None
        try:
            sound = self._parsed(data)
        finally:
            self._waiter = idle
        # What is asked for by who has yet to take the answer before is not begun: see `resume_writing`.
        if idle is None or idle.done() or not self._messages or self._paused:
            return
        # Who waits for a request is not woken for one that takes no wait itself.
        if tried or not (sound and self._try_fast_parsed(data)):
            self._wake(idle)

    def _wake(self, idle: asyncio.Future[None]) -> None:
        """Have a request handled, unless its client is gone: aiohttp fails then."""
        if self.transport is not None and not self.transport.is_closing():
            idle.set_result(None)
            self._server.parsing.count_started_task()

    def _try_fast_parsed(self, data: bytes) -> bool:
        """Answer a request here and now, where it is the only one and its answer takes no wait.

        A task for each request, and the wakings that this takes, cost as much as a status.
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
        """Name the target of a request that differs in nothing else from the last, which is answered."""
        last, idle = self._familiar, self._waiter
        if last is None or idle is None or idle.done() or self._paused or self._force_close or self._close:
            return None
        return last.match_path(data)

    def _try_fast_cached(self, target: str) -> bool:
        """Answer such a request here and now, where that takes no wait."""
        if self._familiar is None or not self._try_fast(self._familiar.message, target):
            return False
        self._request_count += 1
        return True

    def _try_fast(self, message: RawRequestMessage, target: str) -> bool:
        # Without its timer, no one would see to the connection's end.
        if self._keepalive_handle is None or self._half_closed or self._restricted:
            return False
        # Who is gone takes nothing, though it could be written.
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
        """Finish an answer; the next request waits for its turn if it is there already."""
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
        """Answer 408 to an unfinished request head, and close."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(render_error("request-timeout", "The request head did not arrive in time."))
        self.force_close()

    def restrict(self) -> None:
        """Serve one request, and that only if it is a probe's."""
        self._restricted = True
        self._request_handler = self._server.restricted_handler
        self._lingering_time = 0.0

    def request_of(self, message: RawRequestMessage) -> web.BaseRequest:
        """Make a request of a plain GET that is answered at once; its writer is asked for room, no more."""
        make, task = self._request_factory, self._task_handler
        if make is None or task is None:
            raise ConnectionResetError("the connection is lost")
        return make(message, EMPTY_PAYLOAD, self, StreamWriter(self, self._loop), task)

    def write_soon(self, data: bytes) -> None:
        """Write a small answer at once, or with those of other connections where this one was answered so.

        A client that is woken for each of them costs as much as the answers.
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
        """Go on with what was asked for meanwhile, behind whoever waited for the client to take an answer."""
        super().resume_writing()
        idle = self._waiter
        if self._messages and idle is not None and not idle.done():
            self._wake(idle)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take the last of what came, and end."""
        if self._buffer_paused:  # what was held has no one to answer to
            self._received = b""
        self._parse()
        self._server.limits.forget(self)
        super().connection_lost(exc)
        self._received = b""

    def close(self) -> None:
        """Answer what came until now, and nothing that comes from now on."""
        self._parse()
        super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - the parent's signature
        """End the connection, after what was answered."""
        self._flush()
        await super().shutdown(timeout)

    def eof_received(self) -> bool:  # type: ignore[override] # as the parent's
        """Stay open for the answers that are due."""
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
