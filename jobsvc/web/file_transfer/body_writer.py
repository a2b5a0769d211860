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
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.os_errors import describe
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.nonblocking.cached_read import Body
from jobsvc.storage.sendfile.file_sender import FileSender
from jobsvc.web.auth.permits import Permits
from jobsvc.web.file_transfer.throttle import Throttle
from jobsvc.web.file_transfer.transfer import FileTransfer
from jobsvc.web.file_transfer.transfer_state import TransferAborted, TransferState
from jobsvc.web.responses import single_write

log = structlog.get_logger("jobsvc.web")


class BodyWriter:
    """The way of the bytes: from a file, through Disk's threads, into a connection."""

    def __init__(
        self,
        disk: StorageExecutor,
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
        self._on_throttled = on_held
        self.unthrottled = not rate
        """Whether what is in memory may go out in one write."""

    def write(
        self, request: web.Request, status: HTTPStatus, told: str, body: Body
    ) -> web.StreamResponse | None:
        """Write an answer whose body is in memory, where nothing stands against one write; None else.

        `told` is what `whole.lines` wrote of its fields.
        """
        return single_write.write_response(request, status, told, body) if self.unthrottled else None

    async def wait_drained(self, request: web.BaseRequest, shipment: TransferState) -> None:
        """Wait until the client has taken what was written so; Interrupted as below."""
        if request.protocol.writing_paused:
            try:
                async with asyncio.timeout(self._send_timeout):
                    await request.writer.drain()
            except BaseException as ended:
                raise self._abort(request, ended) from ended
        shipment.sent = shipment.expected

    async def send_small(
        self, request: web.Request, response: web.StreamResponse, body: Body, shipment: TransferState
    ) -> None:
        """Send a body that is in memory, in one write with the head or by the rate; Interrupted as below."""
        pace = self._throttle()
        try:
            if pace is not None and body:
                await self._send_slices(request, response, body, shipment, pace)
            else:
                async with asyncio.timeout(self._send_timeout):
                    await response.prepare(request)
                    await response.write_eof(bytes(body))
                shipment.sent = shipment.expected
        except BaseException as ended:
            raise self._abort(request, ended) from ended

    async def send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        file: OpenFile,
        shipment: TransferState,
    ) -> None:
        """Send the head and then the segments, ranges out of `file`, which is closed in the end.

        Raises StorageUnavailable where nothing was sent for want of descriptors, and Interrupted for every
        other end but the good one; the connection is aborted then.
        """
        conduit = self._file_sender(request, file, shipment)
        stream = FileTransfer(
            self._disk, conduit, shipment, request, send_timeout=self._send_timeout, pace=self._throttle()
        )
        try:
            if request.transport is not None:
                # Bytes that go round the transport must not overtake those that are still in its buffer.
                request.transport.set_write_buffer_limits(0)
            writer = cast(AbstractStreamWriter, await response.prepare(request))
            shipment.accepted_by_client = conduit.acked_bytes
            await stream.run(writer)
            await response.write_eof()
            if request.transport is not None:
                request.transport.set_write_buffer_limits()
        except BaseException as ended:
            conduit.abort()
            await stream.wait_thread()
            _log_aborted(shipment, ended)
            raise self._abort(request, ended) from ended
        finally:
            shipment.accepted_by_client = None
            stream.close()

    def release(self, file: OpenFile) -> None:
        """Close a file that is not sent, off the loop."""
        self._disk.close_later(file)

    def _file_sender(self, request: web.Request, file: OpenFile, shipment: TransferState) -> FileSender:
        """Join the file and the connection; where that fails, the file is closed."""
        shipment.file_taken = True
        if request.transport is None:
            self._disk.close_later(file)
            raise TransferAborted(Outcome.CLIENT_GONE)
        try:
            return FileSender(file, _descriptor_of(request.transport), shipment.expected)
        except BaseException as exc:
            self._disk.close_later(file)
            if not isinstance(exc, OSError):
                raise
            detail = "The service has no descriptor left for this download."
            raise StorageUnavailable(detail, reason=describe(exc)) from exc

    def _throttle(self) -> Throttle | None:
        return Throttle(self._rate, self._on_throttled) if self._rate else None

    async def _send_slices(
        self,
        request: web.Request,
        response: web.StreamResponse,
        body: Body,
        shipment: TransferState,
        pace: Throttle,
    ) -> None:
        await response.prepare(request)
        left = len(body)
        while left:
            count = await pace.acquire(left)
            piece, left = bytes(body[-left:][:count]), left - count
            async with asyncio.timeout(self._send_timeout):
                # Only the end waits until the client has taken what went before.
                await (response.write(piece) if left else response.write_eof(piece))
            pace.consume(count)
            shipment.sent += count

    def _abort(self, request: web.BaseRequest, ended: BaseException) -> BaseException:
        """Break the connection, and say what that means for the download; a cancellation stays one."""
        if request.transport is not None:
            request.transport.abort()
        if isinstance(ended, StorageUnavailable):
            return TransferAborted(Outcome.STORAGE_ERROR)
        if isinstance(ended, TimeoutError | ConnectionError):
            return TransferAborted(Outcome.CLIENT_GONE)
        return ended


def _log_aborted(shipment: TransferState, ended: BaseException) -> None:
    """Have the log say what the storage did; how clients end their downloads is no news."""
    if isinstance(ended, StorageUnavailable):
        log.warning("download-broken", job=shipment.key, sent=shipment.sent, reason=ended.detail)
    elif isinstance(ended, TransferAborted) and ended.outcome is not Outcome.CLIENT_GONE:
        fault = ended.__cause__
        reason = fault.strerror if isinstance(fault, OSError) else "the file was changed under way"
        log.warning("download-broken", job=shipment.key, sent=shipment.sent, reason=reason)


def _descriptor_of(transport: asyncio.Transport) -> int:
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None or transport.get_extra_info("sslcontext") is not None:
        raise RuntimeError("only plain connections are served; TLS ends at the proxy")
    return connection.fileno()
