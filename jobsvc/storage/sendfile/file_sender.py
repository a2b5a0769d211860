"""Send byte ranges of one open file to one socket, in slices or chunks; blocking, runs in storage threads.

sendfile(2) queues references to page-cache pages, so bytes overwritten in place afterwards can still reach
the client. Therefore two parts are copied with read() and write(): the last part of the whole, as much as the
socket buffers can hold, and the last piece of each range, before which the file is checked for changes. For a
client on this host the last part is at most 4 MiB, because the kernel reports how much that client has read.
If the file shrank or changed, sending stops before the last byte: a client never gets a complete response
with wrong bytes.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import suppress
from enum import Enum, auto
from functools import cached_property
from struct import pack
from time import monotonic
from typing import Final, NamedTuple

from jobsvc.storage.files.pread import fingerprint, read_fully
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.sendfile.socket_queues import SocketQueues

FIRST_CHUNK_BYTES: Final = 256 * 1024
MAX_CHUNK_BYTES: Final = 4 * 1024 * 1024
"""Bytes requested per sendfile call: few at first, doubled after each chunk that is not slow."""
SLOW_CHUNK_S: Final = 0.02
"""Seconds; after a chunk that took longer, the next one is half the size."""
FAST_CHUNK_S: Final = 0.005
"""Seconds; storage is fast if chunks take less than this on average."""
INITIAL_AVERAGE_S: Final = 0.007
"""Seconds; the average before the first chunk. Three chunks that take no time bring it below FAST_CHUNK_S."""
AVERAGE_WEIGHT: Final = 1 / 8
"""Weight of the newest chunk in the moving average."""
COPY_BYTES: Final = 128 * 1024
"""Bytes copied at once. Before the last piece is sent, the file is checked for changes."""
SLICE_S: Final = 0.1
"""Seconds a thread sends for one download before others use it."""
_RESET: Final = pack("ii", 1, 0)
"""SO_LINGER with timeout 0: closing the last descriptor discards unsent data."""


class StopReason(Enum):
    """Why a slice or chunk ended."""

    CONTINUE = auto()
    """Everything was sent, or the time of the slice is over."""
    WOULD_BLOCK = auto()
    PEER_UNREAD = auto()
    """The peer must read the pages queued by sendfile before the last bytes may be sent."""
    DISCONNECTED = auto()
    FILE_CHANGED = auto()
    """The file was modified since it was opened."""
    STORAGE_ERROR = auto()
    """The storage failed."""

    # Members are hashed for every chunk, and Enum.__hash__ runs in Python.
    __hash__ = object.__hash__


RESUMABLE: Final = frozenset({StopReason.CONTINUE, StopReason.WOULD_BLOCK})
"""Not errors: sending can continue, at once or when the socket is writable."""


class SendResult(NamedTuple):
    """The result of sending one slice or chunk: bytes sent, why it ended, and the storage error if any."""

    sent: int
    stop_reason: StopReason
    error: OSError | None = None


class FileSender:
    """One file and one socket, each with its own descriptor. Only one thread at a time may send."""

    def __init__(self, file: OpenFile, socket_fd: int, expected: int) -> None:
        """Take ownership of `file` and duplicate the socket's descriptor; `expected` bytes will be sent.

        Raises OSError if no descriptor is available; `file` then still belongs to the caller.
        """
        self._file = file
        self._socket = _duplicate(socket_fd)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLOUT)
        self._expected = expected
        self._chunk = FIRST_CHUNK_BYTES
        self._average_chunk_s = INITIAL_AVERAGE_S
        self.queues = SocketQueues(self._socket)
        self._sent_by_sendfile = 0
        """Value of `sent` after the last successful sendfile call."""
        self._closed = False
        self._closing = threading.Lock()
        self._in_use = threading.Lock()
        self.sent = 0
        """Bytes of the file sent so far; a thread might be adding to it."""

    @property
    def socket_fd(self) -> int:
        """The socket's descriptor, to wait on until it is writable; negative once closed."""
        return self._socket.fileno()

    @property
    def in_use(self) -> bool:
        """Whether a thread is sending a chunk."""
        return self._in_use.locked()

    @property
    def is_fast(self) -> bool:
        """Whether chunks take less than FAST_CHUNK_S on average: about as long as from memory."""
        return self._average_chunk_s < FAST_CHUNK_S

    def acked_bytes(self) -> int:
        """Count the bytes that the client's system has acknowledged; all sent bytes if unknown."""
        try:
            return max(0, self.sent - self.queues.unacked())
        except OSError:
            return self.sent

    def remaining_bytes(self) -> int:
        """Count the expected bytes that the client's system has not acknowledged yet, sent or not.

        Raises OSError.
        """
        return self._expected - self.sent + self.queues.unacked()

    def unread_by_peer(self) -> int:
        """Count the bytes that a client on this host has not read yet; all sent bytes if unknown."""
        try:
            return self.queues.unread()
        except OSError:
            return self.sent

    def has_unread_pages(self) -> bool:
        """Return whether a client on this host might not have read all pages queued by sendfile.

        Bytes written to these pages now would reach the client.
        """
        return (
            bool(self._sent_by_sendfile)
            and self.queues.is_local_peer
            and self.unread_by_peer() > self.sent - self._sent_by_sendfile
        )

    def closed_by_client(self) -> bool:
        """Return whether the client has closed its sending side or the whole connection.

        The two cannot be distinguished until more bytes are sent.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close both descriptors."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        try:
            self._socket.close()
        finally:
            self._file.close()

    def abort(self) -> None:
        """Abort the connection; never blocks. Callable at any time from any thread.

        A thread that hangs in a call keeps the socket open even if its descriptors are closed elsewhere. So
        the connection is shut down at once, and unsent data is discarded with the last descriptor.
        """
        with self._closing, suppress(OSError):
            if not self._closed:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._socket.shutdown(socket.SHUT_RDWR)

    def send_slice(self, start: int, stop: int) -> SendResult:
        """Send bytes from `start` to before `stop` for at most about SLICE_S; never raises OSError."""
        self.cork(1)
        over, at, last = monotonic() + SLICE_S, start, SendResult(0, StopReason.CONTINUE)
        while at < stop and monotonic() < over and last.stop_reason is StopReason.CONTINUE:
            last = self.send_chunk(at, stop)
            at += last.sent
        self.cork(0)
        return last._replace(sent=at - start)

    def send_chunk(self, at: int, stop: int) -> SendResult:
        """Send one chunk of these bytes, or the part that fits the socket buffer; never raises OSError."""
        with self._in_use:
            started_at = monotonic()
            result = self._sendfile_chunk(at, stop)
            self.sent += result.sent
            if result.sent:
                self._adjust_chunk_size(monotonic() - started_at)
            return result

    def cork(self, on: int) -> None:
        """Set TCP_CORK (tcp(7)): 1 sends only full packets, 0 sends all that is queued.

        Small packets cost a fifth more. Errors are ignored: a socket that is not TCP works without it, and
        the next send reports a broken one.
        """
        with suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)

    @cached_property
    def _sendfile_end(self) -> int:
        """Number of bytes to send with sendfile; the rest fits in the socket buffers and is copied."""
        return self._expected - self.queues.max_buffered()

    def _sendfile_chunk(self, at: int, stop: int) -> SendResult:
        """Send some bytes with sendfile if enough bytes follow (see `_sendfile_end`), else copy them."""
        count = min(self._chunk, stop - at - COPY_BYTES, self._sendfile_end - self.sent)
        if count > 0:
            try:
                sent = os.sendfile(self.socket_fd, self._file.fd, at, count)
            except BlockingIOError:
                if not self._is_writable():
                    return SendResult(0, StopReason.WOULD_BLOCK)
            except OSError:
                pass
            else:
                self._sent_by_sendfile = self.sent + sent
                return SendResult(sent, _stop_reason_of(sent, count) if sent else StopReason.FILE_CHANGED)
            # The error of sendfile does not say which side failed. Separate read and write calls do.
        return self._copy_chunk(at, min(at + COPY_BYTES, stop), last=at + COPY_BYTES >= stop)

    def _copy_chunk(self, at: int, stop: int, *, last: bool) -> SendResult:
        if self.sent + stop - at >= self._expected and self.has_unread_pages():
            return SendResult(0, StopReason.PEER_UNREAD)
        try:
            piece = read_fully(self._file.fd, at, stop - at)
            if len(piece) < stop - at or (last and is_changed(self._file)):
                return SendResult(0, StopReason.FILE_CHANGED)
        except OSError as error:
            return SendResult(0, StopReason.STORAGE_ERROR, error)
        try:
            sent = os.write(self.socket_fd, piece)
            return SendResult(sent, _stop_reason_of(sent, len(piece)))
        except BlockingIOError:
            return SendResult(0, StopReason.WOULD_BLOCK)
        except OSError:
            return SendResult(0, StopReason.DISCONNECTED)

    def _is_writable(self) -> bool:
        """Return whether the socket is writable, or the client has disconnected."""
        return bool(self._poll.poll(0))

    def _adjust_chunk_size(self, seconds: float) -> None:
        self._average_chunk_s += (seconds - self._average_chunk_s) * AVERAGE_WEIGHT
        if seconds > SLOW_CHUNK_S:
            self._chunk = max(self._chunk // 2, FIRST_CHUNK_BYTES // 4)
        else:
            self._chunk = min(self._chunk * 2, MAX_CHUNK_BYTES)


def _duplicate(socket_fd: int) -> socket.socket:
    """Return a socket with a duplicate of the descriptor; raises OSError."""
    fd = os.dup(socket_fd)
    try:
        return socket.socket(fileno=fd)
    except BaseException:
        os.close(fd)
        raise


def _stop_reason_of(sent: int, count: int) -> StopReason:
    """Return CONTINUE if all `count` bytes were sent, else WOULD_BLOCK: the socket buffer is full."""
    return StopReason.CONTINUE if sent == count else StopReason.WOULD_BLOCK


def is_changed(file: OpenFile) -> bool:
    """Return whether the file was modified since it was opened; raises OSError on storage faults.

    A different size or mtime is a change. A different ctime is one too, unless the link count dropped (the
    file was renamed over or unlinked): tools that restore the mtime after writing leave no other trace. A new
    owner, mode or link is therefore reported as a change. For a log (`fingerprint` set), growth is not a
    change.
    """
    status = os.fstat(file.fd)
    _, size, mtime_ns, ctime_ns = file.version.parts()
    if file.fingerprint is not None:
        return status.st_size < size or fingerprint(file.fd, size) != file.fingerprint
    if status.st_size != size or status.st_mtime_ns != mtime_ns:
        return True
    return status.st_ctime_ns != ctime_ns and status.st_nlink >= file.link_count
