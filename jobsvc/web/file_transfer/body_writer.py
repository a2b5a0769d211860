"""Send byte ranges of an open file over a connection without blocking the event loop.

Files are sent in the storage executor's threads, mostly by sendfile(2), as fast as the throttle allows. A
client that accepts nothing uses descriptors but no thread, and is disconnected after `send_timeout`. If a
transfer ends early the connection is aborted, so that the client notices.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from http import HTTPStatus

import structlog
from aiohttp import web

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.observe.download_log import Outcome
from jobsvc.storage.archive.archive_sender import ArchiveSender
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.os_errors import describe
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.nonblocking.cached_read import Body
from jobsvc.storage.sendfile.file_sender import FileSender
from jobsvc.storage.sendfile.socket_sender import SocketSender
from jobsvc.web.auth.permits import Permits
from jobsvc.web.connection.response_stream import ResponseStream, drain, is_write_paused
from jobsvc.web.file_transfer.selection import Archive
from jobsvc.web.file_transfer.throttle import Throttle
from jobsvc.web.file_transfer.transfer import FileTransfer
from jobsvc.web.file_transfer.transfer_state import TransferAborted, TransferState
from jobsvc.web.headers.byte_ranges import ByteRange
from jobsvc.web.responses import single_write

log = structlog.get_logger("jobsvc.web")


class BodyWriter:
    """Write response bodies: from memory, or from a file by the storage executor's threads."""

    def __init__(
        self,
        disk: StorageExecutor,
        permits: Permits,
        *,
        send_timeout: float,
        rate: int,
        on_throttled: Callable[[float], object],
    ) -> None:
        """`send_timeout`: seconds after which a client that accepts nothing is disconnected.

        `rate`: maximum bytes per second of one transfer, 0 for no limit. `on_throttled` is called with the
        seconds of each wait that the limit causes.
        """
        self.permits = permits
        self._disk = disk
        self._send_timeout = send_timeout
        self._rate = rate
        self._on_throttled = on_throttled
        self.unthrottled = not rate
        """Whether a body in memory may be sent in one write."""

    def write(
        self, request: web.Request, status: HTTPStatus, header_lines: str, body: Body
    ) -> web.StreamResponse | None:
        """Send a response whose body is in memory in one write; return None if that is not possible.

        `header_lines` are the header fields as formatted by `single_write.header_lines`.
        """
        return single_write.write_response(request, status, header_lines, body) if self.unthrottled else None

    async def wait_drained(self, request: web.BaseRequest, state: TransferState) -> None:
        """Wait until the client has accepted what `write` sent. Raises the same as `send_small`."""
        if is_write_paused(request):
            try:
                async with asyncio.timeout(self._send_timeout):
                    await drain(request)
            except BaseException as exc:
                raise self._abort(request, exc) from exc
        state.sent = state.expected

    async def send_small(
        self, request: web.Request, response: web.StreamResponse, body: Body, state: TransferState
    ) -> None:
        """Send a body that is in memory, in one write with the head or, with a rate limit, in slices.

        Raises TransferAborted on a storage error or if the client is gone; the connection is aborted then.
        """
        throttle = self._new_throttle()
        try:
            if throttle is not None and body:
                await self._send_slices(request, response, body, state, throttle)
            else:
                async with asyncio.timeout(self._send_timeout):
                    await response.prepare(request)
                    await response.write_eof(bytes(body))
                state.sent = state.expected
        except BaseException as exc:
            raise self._abort(request, exc) from exc

    async def send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        file: OpenFile | Archive,
        state: TransferState,
    ) -> None:
        """Send the head and then the segments, which are ranges of `file`; the file is closed at the end.

        Raises StorageUnavailable if nothing was sent because no descriptor was left. Raises TransferAborted
        if the transfer ends early in any other way; the connection is aborted then.
        """
        sender = self._new_sender(request, file, state)
        file_transfer = FileTransfer(
            self._disk, sender, state, request, send_timeout=self._send_timeout, throttle=self._new_throttle()
        )
        try:
            if request.transport is not None:
                # sendfile bypasses the transport: its bytes must not overtake those still in its buffer.
                request.transport.set_write_buffer_limits(0)
            writer = await ResponseStream.start(request, response)
            state.accepted_by_client = sender.acked_bytes
            await file_transfer.run(writer)
            await response.write_eof()
            if request.transport is not None:
                request.transport.set_write_buffer_limits()
        except BaseException as exc:
            sender.abort()
            await file_transfer.wait_thread()
            _log_aborted(state, sender.file_name, exc)
            raise self._abort(request, exc) from exc
        finally:
            state.accepted_by_client = None
            file_transfer.close()

    def release(self, file: OpenFile | Archive) -> None:
        """Close a file that is not sent, outside the event loop's thread."""
        self._disk.close_later(file)

    def _new_sender(
        self, request: web.Request, file: OpenFile | Archive, state: TransferState
    ) -> SocketSender:
        """Create the sender for this connection; if that fails, the file is closed.

        Raises TransferAborted if the connection is lost, StorageUnavailable if no descriptor is left.
        """
        state.file_taken = True
        if request.transport is None:
            self._disk.close_later(file)
            raise TransferAborted(Outcome.CLIENT_GONE)
        try:
            return _sender(file, _descriptor_of(request.transport), state)
        except BaseException as exc:
            self._disk.close_later(file)
            if not isinstance(exc, OSError):
                raise
            detail = "The service has no file descriptor left for this download."
            raise StorageUnavailable(detail, reason=describe(exc)) from exc

    def _new_throttle(self) -> Throttle | None:
        return Throttle(self._rate, self._on_throttled) if self._rate else None

    async def _send_slices(
        self,
        request: web.Request,
        response: web.StreamResponse,
        body: Body,
        state: TransferState,
        throttle: Throttle,
    ) -> None:
        await response.prepare(request)
        remaining = len(body)
        while remaining:
            count = await throttle.acquire(remaining)
            piece, remaining = bytes(body[-remaining:][:count]), remaining - count
            async with asyncio.timeout(self._send_timeout):
                # Only write_eof() waits until the client has accepted everything before it.
                await (response.write(piece) if remaining else response.write_eof(piece))
            throttle.consume(count)
            state.sent += count

    def _abort(self, request: web.BaseRequest, exc: BaseException) -> BaseException:
        """Abort the connection and return the exception to raise.

        That is TransferAborted for storage errors, timeouts and lost connections, and otherwise `exc`
        itself, so that a cancellation remains one.
        """
        if request.transport is not None:
            request.transport.abort()
        if isinstance(exc, StorageUnavailable):
            return TransferAborted(Outcome.STORAGE_ERROR)
        if isinstance(exc, TimeoutError | ConnectionError):
            return TransferAborted(Outcome.CLIENT_GONE)
        return exc


def _log_aborted(state: TransferState, file: str | None, exc: BaseException) -> None:
    """Log transfers that storage errors or changed files ended; those that clients ended are not logged."""
    if isinstance(exc, StorageUnavailable):
        log.warning("download-broken", job=state.key, file=file, sent=state.sent, reason=exc.detail)
    elif isinstance(exc, TransferAborted) and exc.outcome is not Outcome.CLIENT_GONE:
        cause = exc.__cause__
        reason = cause.strerror if isinstance(cause, OSError) else "the file changed during the download"
        log.warning("download-broken", job=state.key, file=file, sent=state.sent, reason=reason)


def _sender(file: OpenFile | Archive, socket_fd: int, state: TransferState) -> SocketSender:
    """Create the sender of a file or an archive; raises OSError if no descriptor is left."""
    if isinstance(file, OpenFile):
        return FileSender(file, socket_fd, state.expected)
    ranges = [(part.start, part.stop) for part in state.segments if isinstance(part, ByteRange)]
    return ArchiveSender(file.layout, file.source, socket_fd, ranges)


def _descriptor_of(transport: asyncio.Transport) -> int:
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None or transport.get_extra_info("sslcontext") is not None:
        raise RuntimeError("only unencrypted connections are supported; TLS ends at the proxy")
    return connection.fileno()
