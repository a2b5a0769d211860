"""Event streams as connections: begun, written to, kept awake, and ended, whatever the client does.

Our own few lines, for aiohttp-sse forms each event anew for each reader, keeps a task a stream for its
heartbeat, and knows no HEAD. Who takes nothing is let go; how slow one may be, the transport says, which
holds a few kilobytes and no more.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic
from typing import Final, TypeAlias, cast

from aiohttp import hdrs, web
from aiohttp.http import StreamWriter

from jobsvc.observe.metrics import Metrics
from jobsvc.web.envelope import seal
from jobsvc.web.permits import PermitLost
from jobsvc.web.stays import Stay, Stays

HEARTBEAT: Final = 15.0
"""Seconds of silence after which a comment is sent: proxies cut what is silent for long."""
UNSENT: Final = 16 * 1024
"""Bytes that wait in the kernel, and as many in the transport, before an event waits for its reader."""

_FIELDS: Final = {
    hdrs.CONTENT_TYPE: "text/event-stream",
    hdrs.CACHE_CONTROL: "no-store",
    "X-Accel-Buffering": "no",  # else nginx keeps events back until it has some kilobytes of them
    "X-Content-Type-Options": "nosniff",
}
_GREETING: Final = b"retry: 2000\n\n"
"""Milliseconds after which a client that lost its connection should come back."""
_BEAT: Final = b":\n\n"


class EventStream:
    """One stream under way."""

    def __init__(self, stay: Stay, writer: StreamWriter, send_timeout: float) -> None:
        self._stay = stay
        self._writer = writer
        self._send_timeout = send_timeout
        self._said = monotonic()

    @property
    def open(self) -> bool:
        """Whether there is still someone to tell."""
        return self._stay.over is None

    async def send(self, data: bytes) -> None:
        """Send whole events.

        PermitLost; ConnectionError, TimeoutError where the client took nothing for too long.
        """
        if not self._stay.permitted():
            raise PermitLost
        self._said = monotonic()
        await self._writer.write(data, drain=False)
        if self._stay.request.protocol.writing_paused:
            async with asyncio.timeout(self._send_timeout):
                await self._writer.drain()

    async def rest(self, most: float = inf) -> None:
        """Wait until woken, for about `most` seconds, or until the stream is to end; with heartbeats."""
        beat = self._said + HEARTBEAT
        self._stay.due = min(beat, monotonic() + most)
        await self._stay.rest()
        if self.open and monotonic() >= beat:
            await self.send(_BEAT)


Talk: TypeAlias = Callable[[EventStream], Awaitable[None]]
"""Says all that there is to say; what it returns from early is a stay that is over."""


class Streams:
    """What all streams are made with."""

    def __init__(self, stays: Stays, metrics: Metrics, *, send_timeout: float) -> None:
        """`send_timeout`: seconds after which a client that takes nothing is let go."""
        self._stays = stays
        self._metrics = metrics
        self._send_timeout = send_timeout

    @contextmanager
    def stay(self, request: web.Request, of: str) -> Iterator[Stay]:
        """Let a request stay for the length of a block; `of` is what its stream tells of, for the metrics."""
        with self._stays.stay(request, self._metrics.streams.labels(of)) as stay:
            yield stay

    async def converse(self, stay: Stay, talk: Talk) -> web.StreamResponse:
        """Answer with a stream of what `talk` says; a HEAD with its head alone."""
        request = stay.request
        response = web.StreamResponse(headers=_FIELDS)
        response.force_close()  # the socket is set up for this stream alone
        seal(request, response)
        transport = request.transport
        if request.method != hdrs.METH_GET or transport is None:
            return response
        try:
            _hold_little(transport)
            writer = cast(StreamWriter, await response.prepare(request))
            stream = EventStream(stay, writer, self._send_timeout)
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


def _hold_little(transport: asyncio.Transport) -> None:
    """Have little wait to be sent: what waits there can't be merged any more."""
    transport.set_write_buffer_limits(UNSENT)
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
