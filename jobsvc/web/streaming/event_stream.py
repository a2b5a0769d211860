"""Start, write, keep alive and end event streams.

aiohttp-sse is not used: it formats each event again for each reader, keeps one task per stream for
heartbeats, and does not support HEAD. A client that accepts nothing for `send_timeout` is disconnected.
Writing pauses when the buffer of the transport is full, which holds only a few kilobytes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from math import inf
from time import monotonic
from typing import Final, TypeAlias

from aiohttp import hdrs, web

from jobsvc.observe.metrics import Metrics
from jobsvc.web.auth.permits import PermitLost
from jobsvc.web.connection.fair_scheduling import YieldingLock
from jobsvc.web.connection.response_stream import ResponseStream
from jobsvc.web.responses.common_headers import add_common_headers
from jobsvc.web.streaming import sse
from jobsvc.web.streaming.long_lived import LongLivedRequest, LongLivedRequests

KEEP_ALIVE_INTERVAL_S: Final = 15.0
"""Seconds without an event after which a comment or an id is sent: proxies close idle connections."""
MAX_UNSENT_BYTES: Final = 16 * 1024
"""Unsent bytes in the kernel, and as many in the transport, above which writing waits for the client."""
PIECE_BYTES: Final = 32 * 1024
"""Maximum bytes of one write, and so the bytes held in memory for a client that accepts nothing."""

_FIELDS: Final = {
    hdrs.CONTENT_TYPE: "text/event-stream",
    hdrs.CACHE_CONTROL: "no-store",
    "X-Accel-Buffering": "no",  # otherwise nginx buffers some kilobytes of events
    "X-Content-Type-Options": "nosniff",
}
_GREETING: Final = b"retry: 2000\n\n"
"""Milliseconds after which a client that lost its connection should reconnect."""
_COMMENT: Final = b":\n\n"


class EventStream:
    """One open event stream."""

    def __init__(
        self,
        long_lived: LongLivedRequest,
        writer: ResponseStream,
        work_lock: YieldingLock,
        send_timeout: float,
    ) -> None:
        self._request = long_lived
        self._writer = writer
        self._work_lock = work_lock
        self._send_timeout = send_timeout
        self._last_sent_at = monotonic()
        self.heartbeat = _COMMENT
        """What is sent after KEEP_ALIVE_INTERVAL_S without an event."""

    @property
    def is_open(self) -> bool:
        """Whether the stream has not been ended by its client, its token or shutdown."""
        return self._request.end_reason is None

    async def send(self, *parts: sse.Buffer) -> None:
        """Send complete events, given in parts that are joined; large ones are sent in several pieces.

        Raises PermitLost; ConnectionError; TimeoutError if the client accepts nothing for too long.
        """
        if sum(map(len, parts)) <= PIECE_BYTES:
            await self._write(b"".join(parts))
            return
        for piece in _pieces(parts):
            async with self._work_lock:
                pass
            await self._write(piece)

    async def _write(self, data: sse.Buffer) -> None:
        if not self._request.check_permit():
            raise PermitLost
        self._last_sent_at = monotonic()
        await self._writer.write_undrained(data)
        if self._writer.paused:
            async with asyncio.timeout(self._send_timeout):
                await self._writer.drain()

    async def wait(self, timeout_s: float = inf) -> None:
        """Wait until notified, for `timeout_s` or until the stream has to end; sends heartbeats."""
        heartbeat_at = self._last_sent_at + KEEP_ALIVE_INTERVAL_S
        self._request.deadline = min(heartbeat_at, monotonic() + timeout_s)
        await self._request.wait()
        if self.is_open and monotonic() >= heartbeat_at:
            await self.send(self.heartbeat)


EventWriter: TypeAlias = Callable[[EventStream], Awaitable[None]]
"""Sends all events of a stream; returns early if the request has ended."""


class EventStreams:
    """Factory of event streams."""

    def __init__(
        self,
        requests: LongLivedRequests,
        metrics: Metrics,
        work_lock: YieldingLock,
        *,
        send_timeout: float,
    ) -> None:
        """`send_timeout`: seconds after which a client that accepts nothing is disconnected."""
        self._requests = requests
        self._work_lock = work_lock
        self._metrics = metrics
        self._send_timeout = send_timeout

    @asynccontextmanager
    async def hold(self, request: web.Request, subject: str) -> AsyncIterator[LongLivedRequest]:
        """Register a long-lived request during the block; `subject` is its label in the metrics."""
        async with self._requests.hold(request, self._metrics.streams.labels(subject)) as long_lived:
            yield long_lived

    async def respond(self, long_lived: LongLivedRequest, send_events: EventWriter) -> web.StreamResponse:
        """Respond with a stream of the events that `send_events` sends; to HEAD, with the head only."""
        request = long_lived.request
        response = web.StreamResponse(headers=_FIELDS)
        response.force_close()  # the socket's options are set for this stream
        add_common_headers(request, response)
        transport = request.transport
        if request.method != hdrs.METH_GET or transport is None:
            return response
        try:
            _limit_buffers(transport)
            writer = await ResponseStream.start(request, response)
            stream = EventStream(long_lived, writer, self._work_lock, self._send_timeout)
            with suppress(PermitLost):
                await stream.send(_GREETING)
                await send_events(stream)
            async with asyncio.timeout(self._send_timeout):
                await response.write_eof()
        except (ConnectionError, TimeoutError):
            _abort(request)
        except BaseException:
            _abort(request)  # no other response can follow one that has started
            raise
        return response


def _abort(request: web.Request) -> None:
    """Close the connection unless it is closed: asyncio cannot abort a transport after connection_lost()."""
    if request.transport is not None:
        request.transport.abort()


def _pieces(parts: Iterable[sse.Buffer]) -> Iterator[sse.Buffer]:
    """Join small parts, and split large ones without copying them."""
    small: list[sse.Buffer] = []
    size = 0
    for part in parts:
        if size + len(part) > PIECE_BYTES and small:
            yield b"".join(small)
            small, size = [], 0
        if len(part) <= PIECE_BYTES:
            small.append(part)
            size += len(part)
            continue
        view = memoryview(part)
        yield from (view[start : start + PIECE_BYTES] for start in range(0, len(part), PIECE_BYTES))
    yield b"".join(small)


def _limit_buffers(transport: asyncio.Transport) -> None:
    """Limit the unsent data in transport and kernel: events in these buffers cannot be coalesced any more."""
    transport.set_write_buffer_limits(MAX_UNSENT_BYTES)
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
