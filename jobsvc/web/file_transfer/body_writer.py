"""Sends byte ranges of an open file down a connection, and keeps the loop free while it does.

Bytes move on Disk's threads, by sendfile, as fast as the stream's pace allows; a client that takes
none costs descriptors and nothing else, and is let go after a while. Whatever ends a transfer early aborts
the connection: the client knows.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.observe.download_log import Outcome
from jobsvc.storage.executor import Disk
from jobsvc.storage.files.os_errors import describe
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.nonblocking.cached_read import Body
from jobsvc.storage.sendfile.file_sender import Conduit
from jobsvc.web.auth.permits import Permits
from jobsvc.web.file_transfer.throttle import Pace
from jobsvc.web.file_transfer.transfer import Stream
from jobsvc.web.file_transfer.transfer_state import Interrupted, Shipment
from jobsvc.web.responses import single_write

_log = structlog.get_logger("jobsvc.web")


class Transfer:
    """The way of the bytes: from a file, through Disk's threads, into a connection."""

    def __init__(
        self,
        disk: Disk,
        permits: Permits,
        *,
        send_timeout: float,
        rate: int,
        on_held: Callable[[float], object],
    ) -> None:
        """`send_timeout`: seconds after which a client that accepts nothing is let go.

        `rate`: bytes a second of one stream, 0 is no bound; `on_held` is told the seconds it cost a stream.
        """
        self.permits = permits
        self._disk = disk
        self._send_timeout = send_timeout
        self._rate = rate
        self._on_held = on_held
        self.unpaced = not rate
        """Whether what is in memory may go out in one write."""

    def write(
        self, request: web.Request, status: HTTPStatus, told: str, body: Body
    ) -> web.StreamResponse | None:
        """Write an answer whose body is in memory, where nothing stands against one write; None else.

        `told` is what `whole.lines` wrote of its fields.
        """
        return single_write.send(request, status, told, body) if self.unpaced else None

    async def taken(self, request: web.BaseRequest, shipment: Shipment) -> None:
        """Wait until the client has taken what was written so; Interrupted as below."""
        if request.protocol.writing_paused:
            try:
                async with asyncio.timeout(self._send_timeout):
                    await request.writer.drain()
            except BaseException as ended:
                raise self._abort(request, ended) from ended
        shipment.sent = shipment.promised

    async def send_small(
        self, request: web.Request, response: web.StreamResponse, body: Body, shipment: Shipment
    ) -> None:
        """Send a body that is in memory, in one write with the head or by the rate; Interrupted as below."""
        pace = self._pace()
        try:
            if pace is not None and body:
                await self._send_slices(request, response, body, shipment, pace)
            else:
                async with asyncio.timeout(self._send_timeout):
                    await response.prepare(request)
                    await response.write_eof(bytes(body))
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

        Raises StorageUnavailable where nothing was sent for want of descriptors, and Interrupted for every
        other end but the good one; the connection is aborted then.
        """
        conduit = self._conduit(request, file, shipment)
        stream = Stream(
            self._disk, conduit, shipment, request, send_timeout=self._send_timeout, pace=self._pace()
        )
        try:
            if request.transport is not None:
                # Bytes that go round the transport must not overtake those that are still in its buffer.
                request.transport.set_write_buffer_limits(0)
            writer = cast(AbstractStreamWriter, await response.prepare(request))
            shipment.accepted_by_client = conduit.accepted
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
            shipment.accepted_by_client = None
            stream.close()

    def release(self, file: OpenFile) -> None:
        """Close a file that is not sent, off the loop."""
        self._disk.release(file)

    def _conduit(self, request: web.Request, file: OpenFile, shipment: Shipment) -> Conduit:
        """Join the file and the connection; where that fails, the file is closed."""
        shipment.file_taken = True
        if request.transport is None:
            self._disk.release(file)
            raise Interrupted(Outcome.CLIENT_GONE)
        try:
            return Conduit(file, _descriptor_of(request.transport), shipment.promised)
        except BaseException as exc:
            self._disk.release(file)
            if not isinstance(exc, OSError):
                raise
            detail = "The service has no descriptor left for this download."
            raise StorageUnavailable(detail, reason=describe(exc)) from exc

    def _pace(self) -> Pace | None:
        return Pace(self._rate, self._on_held) if self._rate else None

    async def _send_slices(
        self,
        request: web.Request,
        response: web.StreamResponse,
        body: Body,
        shipment: Shipment,
        pace: Pace,
    ) -> None:
        await response.prepare(request)
        left = len(body)
        while left:
            count = await pace.granted(left)
            piece, left = bytes(body[-left:][:count]), left - count
            async with asyncio.timeout(self._send_timeout):
                # Only the end waits until the client has taken what went before.
                await (response.write(piece) if left else response.write_eof(piece))
            pace.went(count)
            shipment.sent += count

    def _abort(self, request: web.BaseRequest, ended: BaseException) -> BaseException:
        """Break the connection, and say what that means for the download; a cancellation stays one."""
        if request.transport is not None:
            request.transport.abort()
        if isinstance(ended, StorageUnavailable):
            return Interrupted(Outcome.STORAGE_ERROR)
        if isinstance(ended, TimeoutError | ConnectionError):
            return Interrupted(Outcome.CLIENT_GONE)
        return ended


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
