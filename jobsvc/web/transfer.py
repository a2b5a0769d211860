"""Sends byte ranges of an open file down a connection, and keeps the loop free while it does.

Bytes move in turns on Disk's threads, by sendfile; a client that takes none costs descriptors and nothing
else, and is let go after a while. Whatever ends a transfer early aborts the connection: the client knows.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.observe.audit import Outcome
from jobsvc.storage.conduit import Conduit, Halt, Turn
from jobsvc.storage.disk import Disk
from jobsvc.storage.reader import OpenFile
from jobsvc.web.byteranges import ByteRange

SETTLING: Final = 20
"""Hundredths of a second."""
PRESENCE: Final = 1.0
"""Seconds after which a turn that is not over asks whether the client still is there."""


_log = structlog.get_logger("jobsvc.web")


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


class Transfer:
    """The way of the bytes: from a file, through Disk's threads, into a connection."""

    def __init__(self, disk: Disk, *, send_timeout: float) -> None:
        """`send_timeout`: seconds after which a client that accepts nothing is let go."""
        self._disk = disk
        self._send_timeout = send_timeout

    async def send_small(
        self, request: web.Request, response: web.StreamResponse, body: bytes, shipment: Shipment
    ) -> None:
        """Send a body that is in memory, in one write with the head; Interrupted as below."""
        try:
            async with asyncio.timeout(self._send_timeout):
                await response.prepare(request)
                await response.write_eof(body)
        except BaseException as ended:
            raise self._abort(request, ended) from ended
        shipment.sent = shipment.promised

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
        stream = _Stream(self._disk, conduit, shipment, request, self._send_timeout)
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
            await stream.settled()
            _tell(shipment, ended)
            raise self._abort(request, ended) from ended
        finally:
            stream.close()

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
        self, disk: Disk, conduit: Conduit, shipment: Shipment, request: web.Request, send_timeout: float
    ) -> None:
        self._disk = disk
        self._conduit = conduit
        self._shipment = shipment
        self._request = request
        self._send_timeout = send_timeout
        self._lent = False
        self._watch: asyncio.TimerHandle

    def close(self) -> None:
        if not self._lent:
            self._disk.release(self._conduit)

    async def run(self, writer: AbstractStreamWriter) -> None:
        writer.send_headers()
        await self._emptied(writer)
        for segment in self._shipment.segments:
            if isinstance(segment, bytes):
                await writer.write(segment)
                await self._emptied(writer)
            else:
                await self._file(segment.start, segment.stop)

    async def settled(self) -> None:
        """Wait for the thread that was left in its turn, unless it hangs; what was sent is known then."""
        for _ in range(SETTLING):
            if not self._conduit.moving:
                break
            await asyncio.sleep(0.01)
        self._shipment.sent = self._conduit.sent

    async def _emptied(self, writer: AbstractStreamWriter) -> None:
        await self._patiently(writer.drain)

    async def _patiently(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait for the client; TimeoutError when it accepted nothing for too long, however slow it may be."""
        while True:
            queued = self._conduit.queued()
            try:
                async with asyncio.timeout(self._send_timeout):
                    return await wait()
            except TimeoutError:
                if self._conduit.queued() >= queued:
                    raise

    async def _file(self, start: int, stop: int) -> None:
        while start < stop:
            turn = await self._turn(start, stop)
            start += turn.sent
            self._shipment.sent = self._conduit.sent
            if turn.halt is Halt.CLIENT_FULL:
                await self._patiently(self._writable)
            elif turn.halt is not Halt.TURN_OVER:
                raise Interrupted(_OUTCOMES[turn.halt]) from turn.fault

    async def _turn(self, start: int, stop: int) -> Turn:
        self._lent = True
        key, conduit = self._shipment.key, self._conduit
        async with asyncio.timeout(None) as wait:
            self._watch = asyncio.get_running_loop().call_later(PRESENCE, self._see_client, wait)
            try:
                turn = await self._disk.data(key, lambda: conduit.send(start, stop), conduit)
            finally:
                self._watch.cancel()
        self._lent = False
        return turn

    def _see_client(self, wait: asyncio.Timeout) -> None:
        """Wait for a hung thread no longer than there is a client, who may be back and needs the slot."""
        if self._request.transport is None:
            wait.reschedule(0)
        else:
            self._watch = asyncio.get_running_loop().call_later(PRESENCE, self._see_client, wait)

    async def _writable(self) -> None:
        """Wait until there is room for more than a little."""
        loop, descriptor = asyncio.get_running_loop(), self._conduit.socket_fd
        ready = loop.create_future()
        loop.add_writer(descriptor, _resolve, ready)
        try:
            await ready
        finally:
            loop.remove_writer(descriptor)


_OUTCOMES = {
    Halt.CLIENT_GONE: Outcome.CLIENT_GONE,
    Halt.CHANGED: Outcome.TRUNCATED,
    Halt.FAULT: Outcome.STORAGE_ERROR,
}


def _tell(shipment: Shipment, ended: BaseException) -> None:
    """Have the log say what the storage did; how clients end their downloads is no news."""
    if isinstance(ended, StorageUnavailable):
        _log.warning("download-broken", job=shipment.key, sent=shipment.sent, reason=ended.detail)
    elif isinstance(ended, Interrupted) and ended.outcome is not Outcome.CLIENT_GONE:
        fault = ended.__cause__
        reason = fault.strerror if isinstance(fault, OSError) else "the file was changed under way"
        _log.warning("download-broken", job=shipment.key, sent=shipment.sent, reason=reason)


def _descriptor_of(transport: asyncio.Transport) -> int:
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None or transport.get_extra_info("sslcontext") is not None:
        raise RuntimeError("only plain connections are served; TLS ends at the proxy")
    return connection.fileno()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
