"""Event streams as connections: begun, written to, kept awake, and ended, whatever the client does.

Our own few lines, for aiohttp-sse forms each event anew for each reader, keeps a task a stream for its
heartbeat, and knows no HEAD. Who takes nothing is let go; how slow one may be, the transport says, which
holds a few kilobytes and no more.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic
from typing import Final, TypeAlias, cast

from aiohttp import hdrs, web
from aiohttp.http import StreamWriter

from jobsvc.observe.metrics import Metrics
from jobsvc.web.auth.permits import PermitLost
from jobsvc.web.connection.turns import HeavyWorkTurns
from jobsvc.web.responses.common_headers import add_common_headers
from jobsvc.web.streaming import sse
from jobsvc.web.streaming.long_lived import LongLivedRequest, LongLivedRequests

HEARTBEAT_INTERVAL_S: Final = 15.0
"""Seconds of silence after which a comment is sent: proxies cut what is silent for long."""
MAX_UNSENT_BYTES: Final = 16 * 1024
"""Bytes that wait in the kernel, and as many in the transport, before an event waits for its reader."""
PIECE_BYTES: Final = 32 * 1024
"""The most that is written at once: it is held for a reader who takes nothing."""

_FIELDS: Final = {
    hdrs.CONTENT_TYPE: "text/event-stream",
    hdrs.CACHE_CONTROL: "no-store",
    "X-Accel-Buffering": "no",  # else nginx keeps events back until it has some kilobytes of them
    "X-Content-Type-Options": "nosniff",
}
_GREETING: Final = b"retry: 2000\n\n"
"""Milliseconds after which a client that lost its connection should come back."""
_HEARTBEAT: Final = b":\n\n"


class EventStream:
    """One stream under way."""

    def __init__(
        self, stay: LongLivedRequest, writer: StreamWriter, turns: HeavyWorkTurns, send_timeout: float
    ) -> None:
        self._request = stay
        self._writer = writer
        self._turns = turns
        self._send_timeout = send_timeout
        self._said = monotonic()

    @property
    def open(self) -> bool:
        """Whether there is still someone to tell."""
        return self._request.end_reason is None

    async def send(self, *parts: sse.Buffer) -> None:
        """Send whole events, given in parts that are joined; a large one goes out piece by piece.

        PermitLost; ConnectionError, TimeoutError where the client took nothing for too long.
        """
        if sum(map(len, parts)) <= PIECE_BYTES:
            await self._write(b"".join(parts))
            return
        for piece in _pieces(parts):
            async with self._turns.take():
                pass
            await self._write(piece)

    async def _write(self, data: sse.Buffer) -> None:
        if not self._request.permitted():
            raise PermitLost
        self._said = monotonic()
        await self._writer.write(data, drain=False)
        if self._request.request.protocol.writing_paused:
            async with asyncio.timeout(self._send_timeout):
                await self._writer.drain()

    async def wait(self, most: float = inf) -> None:
        """Wait until woken, for about `most` seconds, or until the stream is to end; with heartbeats."""
        beat = self._said + HEARTBEAT_INTERVAL_S
        self._request.deadline = min(beat, monotonic() + most)
        await self._request.wait()
        if self.open and monotonic() >= beat:
            await self.send(_HEARTBEAT)


EventWriter: TypeAlias = Callable[[EventStream], Awaitable[None]]
"""Says all that there is to say; what it returns from early is a stay that is over."""


class EventStreams:
    """What all streams are made with."""

    def __init__(
        self, stays: LongLivedRequests, metrics: Metrics, turns: HeavyWorkTurns, *, send_timeout: float
    ) -> None:
        """`send_timeout`: seconds after which a client that takes nothing is let go."""
        self._requests = stays
        self._turns = turns
        self._metrics = metrics
        self._send_timeout = send_timeout

    @contextmanager
    def hold(self, request: web.Request, of: str) -> Iterator[LongLivedRequest]:
        """Let a request stay for the length of a block; `of` is what its stream tells of, for the metrics."""
        with self._requests.hold(request, self._metrics.streams.labels(of)) as stay:
            yield stay

    async def respond(self, stay: LongLivedRequest, talk: EventWriter) -> web.StreamResponse:
        """Answer with a stream of what `talk` says; a HEAD with its head alone."""
        request = stay.request
        response = web.StreamResponse(headers=_FIELDS)
        response.force_close()  # the socket is set up for this stream alone
        add_common_headers(request, response)
        transport = request.transport
        if request.method != hdrs.METH_GET or transport is None:
            return response
        try:
            _hold_little(transport)
            writer = cast(StreamWriter, await response.prepare(request))
            stream = EventStream(stay, writer, self._turns, self._send_timeout)
            with suppress(PermitLost):
                await stream.send(_GREETING)
                await talk(stream)
            async with asyncio.timeout(self._send_timeout):
                await response.write_eof()
        except (ConnectionError, TimeoutError):
            transport.abort()
        except BaseException:
            transport.abort()  # no other answer may follow what has begun
            raise
        return response


def _pieces(parts: Iterable[sse.Buffer]) -> Iterator[sse.Buffer]:
    """Join small parts and cut large ones, which are not copied."""
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


def _hold_little(transport: asyncio.Transport) -> None:
    """Have little wait to be sent: what waits there can't be merged any more."""
    transport.set_write_buffer_limits(MAX_UNSENT_BYTES)
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
