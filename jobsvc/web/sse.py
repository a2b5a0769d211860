"""Server-sent events (HTML, section 9.2): how they are written, and a connection that takes them.

Our own few lines, for aiohttp-sse forms each event anew for each reader, keeps a task a stream for its
heartbeat, and knows no HEAD. A reader who takes nothing is let go; how slow he may be is the transport's to
say, which holds a few kilobytes and no more.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeAlias, cast

import orjson
from aiohttp import hdrs, web
from aiohttp.http import StreamWriter

from jobsvc.web.envelope import seal
from jobsvc.web.stays import Stay

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT: Final = 15.0
"""Seconds of silence after which a comment is sent: proxies cut what is silent for long."""
UNSENT: Final = 16 * 1024
"""Bytes that wait in the kernel, and as many in the transport, before an event waits for its reader."""

_FIELDS: Final = {
    hdrs.CONTENT_TYPE: MEDIA_TYPE,
    hdrs.CACHE_CONTROL: "no-store",
    "X-Accel-Buffering": "no",  # else nginx keeps events back until it has some kilobytes of them
    "X-Content-Type-Options": "nosniff",
}
_GREETING: Final = b"retry: 2000\n\n"
"""Milliseconds after which a client that lost its connection should come back."""
_BEAT: Final = b":\n\n"


def event(name: str, data: bytes, place: str | None = None) -> bytes:
    """Write one event; `place` is what the client names when it comes back. Both are ours alone."""
    told = data.replace(b"\n", b"\ndata: ")
    at = b"" if place is None else b"id: " + place.encode() + b"\n"
    return b"event: " + name.encode() + b"\n" + at + b"data: " + told + b"\n\n"


def text(data: bytes) -> bytes:
    """Make text of bytes that events can carry: sound UTF-8, one kind of line end, and none at the end."""
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("utf-8", "replace").encode()
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n")


def offered(request: web.Request) -> str | None:
    """Return what a client that comes back was told last."""
    return request.headers.get("Last-Event-ID")


def removed(job_id: str, place: str | None = None) -> bytes:
    """Write that a job is, for this client, no more; whether it is another's says nothing."""
    return event("removed", orjson.dumps({"id": job_id}), place)


def nothing_more() -> web.Response:
    """Answer a client that came back and has all there will be: an EventSource stops coming then."""
    return web.Response(status=204, headers={hdrs.CACHE_CONTROL: "no-store"})


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
        """Send whole events; ConnectionError, TimeoutError where the client took nothing for too long."""
        self._said = monotonic()
        await self._writer.write(data, drain=False)
        if self._stay.request.protocol.writing_paused:
            async with asyncio.timeout(self._send_timeout):
                await self._writer.drain()

    async def rest(self) -> None:
        """Wait until woken, or until the stream is to end; after much silence there is a heartbeat."""
        self._stay.due = self._said + HEARTBEAT
        await self._stay.rest()
        if self.open and monotonic() >= self._stay.due:
            await self.send(_BEAT)


Talk: TypeAlias = Callable[[EventStream], Awaitable[None]]
"""Says all that there is to say; what it returns from early is a stay that is over."""


async def converse(stay: Stay, send_timeout: float, talk: Talk) -> web.StreamResponse:
    """Answer with a stream; a client that left, or takes nothing for `send_timeout` seconds, ends it."""
    request = stay.request
    response = web.StreamResponse(headers=_FIELDS)
    response.force_close()  # the socket is set up for this stream alone
    seal(request, response)
    transport = request.transport
    if request.method != hdrs.METH_GET or transport is None:
        return response
    try:
        _hold_little(transport)
        stream = EventStream(stay, cast(StreamWriter, await response.prepare(request)), send_timeout)
        await stream.send(_GREETING)
        await talk(stream)
        async with asyncio.timeout(send_timeout):
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
