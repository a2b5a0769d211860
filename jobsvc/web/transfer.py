"""Sends byte ranges of an open file down a connection, and keeps the loop free while it does.

Bytes move in turns on Disk's threads, by sendfile, as fast as the stream's pace allows; a client that takes
none costs descriptors and nothing else, and is let go after a while. Whatever ends a transfer early aborts
the connection: the client knows.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.observe.audit import Outcome
from jobsvc.storage.conduit import Conduit, Halt, Turn
from jobsvc.storage.disk import Disk
from jobsvc.storage.reader import OpenFile
from jobsvc.web import whole
from jobsvc.web.byteranges import ByteRange
from jobsvc.web.pace import Pace


class Interrupted(Exception):
    """The transfer ended before its end, and the connection was aborted."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


@dataclass(slots=True)
class Shipment:
    """What is to go out for one download, and how much of it has."""

    key: str
    """Whose share of the threads it takes: the job's id."""
    segments: Sequence[ByteRange | bytes]
    """Ranges of the file, and bytes that go out as they are."""
    promised: int
    """Bytes of the file."""
    sent: int = 0
    """Likewise."""
    begun: float = field(default_factory=time.time)
    """Seconds since the epoch."""


class Transfer:
    """The way of the bytes: from a file, through Disk's threads, into a connection."""

    def __init__(
        self, disk: Disk, *, send_timeout: float, rate: int, on_held: Callable[[float], object]
    ) -> None:
        """`send_timeout`: seconds after which a client that accepts nothing is let go.

        `rate`: bytes a second of one stream, 0 is no bound; `on_held` is told the seconds it cost a stream.
        """
        self._disk = disk
        self._send_timeout = send_timeout
        self._rate = rate
        self._on_held = on_held

    async def send_at_once(
        self,
        request: web.Request,
        status: HTTPStatus,
        fields: Mapping[str, str],
        body: bytes,
        shipment: Shipment,
    ) -> web.StreamResponse | None:
        """Send a body that is in memory, where nothing stands against one write; None else.

        Interrupted as below.
        """
        sent = None if self._rate else whole.send(request, status, fields, body)
        if sent is None:
            return None
        if request.protocol.writing_paused:
            try:
                async with asyncio.timeout(self._send_timeout):
                    await request.writer.drain()
            except BaseException as ended:
                raise self._abort(request, ended) from ended
        shipment.sent = shipment.promised
        return sent

    async def send_small(
        self, request: web.Request, response: web.StreamResponse, body: bytes, shipment: Shipment
    ) -> None:
        """Send a body that is in memory, in one write with the head or by the rate; Interrupted as below."""
        pace = self._pace()
        try:
            if pace is not None and body:
                await self._send_slices(request, response, body, shipment, pace)
            else:
                async with asyncio.timeout(self._send_timeout):
                    await response.prepare(request)
                    await response.write_eof(body)
                shipment.sent = shipment.promised
        except BaseException as ended:
            raise self._abort(request, ended) from ended

    async def send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        file: OpenFile,
        shipment: Shipment,
    ) -> None:
        """Send the head and then the segments, ranges out of `file`, which is closed in the end.

        Raises Interrupted for every end but the good one; the connection is aborted then.
        """
        if request.transport is None:
            self._disk.release(file)
            raise Interrupted(Outcome.CLIENT_GONE)
        conduit = Conduit(file, _descriptor_of(request.transport), shipment.promised)
        stream = _Stream(self._disk, conduit, shipment, self._send_timeout, self._pace())
        try:
            # Bytes that go round the transport must not overtake those that are still in its buffer.
            request.transport.set_write_buffer_limits(0)
            writer = cast(AbstractStreamWriter, await response.prepare(request))
            await stream.run(writer)
            await response.write_eof()
            if request.transport is not None:
                request.transport.set_write_buffer_limits()
        except BaseException as ended:
            conduit.cut()
            raise self._abort(request, ended) from ended
        finally:
            stream.close()

    def _pace(self) -> Pace | None:
        return Pace(self._rate, self._on_held) if self._rate else None

    async def _send_slices(
        self,
        request: web.Request,
        response: web.StreamResponse,
        body: bytes,
        shipment: Shipment,
        pace: Pace,
    ) -> None:
        await response.prepare(request)
        left = len(body)
        while left:
            count = await pace.granted(left)
            piece, left = body[-left:][:count], left - count
            async with asyncio.timeout(self._send_timeout):
                # Only the end waits until the client has taken what went before.
                await (response.write(piece) if left else response.write_eof(piece))
            pace.went(count)
            shipment.sent += count

    def _abort(self, request: web.Request, ended: BaseException) -> BaseException:
        """Break the connection, and say what that means for the download; a cancellation stays one."""
        if request.transport is not None:
            request.transport.abort()
        if isinstance(ended, StorageUnavailable):
            return Interrupted(Outcome.STORAGE_ERROR)
        if isinstance(ended, TimeoutError | ConnectionError):
            return Interrupted(Outcome.CLIENT_GONE)
        return ended


class _Stream:
    """One transfer under way. While a thread has the conduit it is lent: the pool closes it if we leave."""

    def __init__(
        self, disk: Disk, conduit: Conduit, shipment: Shipment, send_timeout: float, pace: Pace | None
    ) -> None:
        self._disk = disk
        self._conduit = conduit
        self._shipment = shipment
        self._send_timeout = send_timeout
        self._pace = pace
        self._lent = False

    def close(self) -> None:
        if not self._lent:
            self._disk.release(self._conduit)

    async def run(self, writer: AbstractStreamWriter) -> None:
        writer.send_headers()
        await self._emptied(writer)
        for segment in self._shipment.segments:
            if isinstance(segment, bytes):
                await self._bytes(writer, segment)
            else:
                await self._file(segment.start, segment.stop)

    async def _bytes(self, writer: AbstractStreamWriter, data: bytes) -> None:
        while data:
            count = await self._granted(len(data))
            await writer.write(data[:count])
            await self._emptied(writer)
            self._went(count)
            data = data[count:]

    async def _emptied(self, writer: AbstractStreamWriter) -> None:
        async with asyncio.timeout(self._send_timeout):
            await writer.drain()

    async def _file(self, start: int, stop: int) -> None:
        while start < stop:
            turn = await self._turn(start, start + await self._granted(stop - start))
            start += turn.sent
            self._shipment.sent += turn.sent
            self._went(turn.sent)
            if turn.halt is Halt.CLIENT_FULL:
                await self._writable()
            elif turn.halt is not Halt.TURN_OVER:
                raise Interrupted(_OUTCOMES[turn.halt]) from turn.fault

    async def _granted(self, left: int) -> int:
        return left if self._pace is None else await self._pace.granted(left)

    def _went(self, count: int) -> None:
        if self._pace is not None:
            self._pace.went(count)

    async def _turn(self, start: int, stop: int) -> Turn:
        self._lent = True
        key, conduit = self._shipment.key, self._conduit
        turn = await self._disk.data(key, lambda: conduit.send(start, stop), conduit)
        self._lent = False
        return turn

    async def _writable(self) -> None:
        """Wait until the client takes bytes again; TimeoutError when it took none for too long."""
        loop, descriptor = asyncio.get_running_loop(), self._conduit.socket_fd
        ready = loop.create_future()
        loop.add_writer(descriptor, _resolve, ready)
        timer = loop.call_later(self._send_timeout, _give_up, ready)
        try:
            await ready
        finally:
            timer.cancel()
            loop.remove_writer(descriptor)


_OUTCOMES = {
    Halt.CLIENT_GONE: Outcome.CLIENT_GONE,
    Halt.CHANGED: Outcome.TRUNCATED,
    Halt.FAULT: Outcome.STORAGE_ERROR,
}


def _descriptor_of(transport: asyncio.Transport) -> int:
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None or transport.get_extra_info("sslcontext") is not None:
        raise RuntimeError("only plain connections are served; TLS ends at the proxy")
    return connection.fileno()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _give_up(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError("the client accepted nothing"))
