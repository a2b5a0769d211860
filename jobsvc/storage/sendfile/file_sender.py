"""Moves bytes from an open file to a socket, in Disk's threads: a turn at a time, or a chunk.

The file is watched while it goes out: one that shrank, or was written to in place, is found out before its
last byte is sent, so that nothing wrong is ever finished cleanly. For that the end is copied: sendfile(2)
hands over pages, not bytes, and what is written to these while they wait for the client goes out as well.
As much is copied as may wait; less for a client on this host, of whom the kernel knows what he has read.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from contextlib import suppress
from enum import Enum
from functools import cached_property
from struct import pack
from time import monotonic
from typing import Final, NamedTuple

from jobsvc.storage.files.pread import fingerprint, read_fully
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.sendfile.socket_queues import SocketQueues

FIRST_CHUNK_BYTES: Final = 256 * 1024
MAX_CHUNK_BYTES: Final = 4 * 1024 * 1024
"""Bytes asked of one sendfile call: few until storage proved quick, many once it did."""
SLOW_CHUNK_S: Final = 0.02
"""A chunk that took longer than this (seconds) has the next one halved."""
FAST_CHUNK_S: Final = 0.005
"""Storage is quick where chunks take less than this (seconds) on average."""
INITIAL_AVERAGE_S: Final = 0.007
"""What a chunk counts as before the first went: three that took no time prove it wrong."""
AVERAGE_WEIGHT: Final = 1 / 8
"""That of the last chunk in the average."""
COPY_BYTES: Final = 128 * 1024
"""Bytes copied at once. Of a last piece the file is asked whether it changed before it goes out."""
SLICE_S: Final = 0.1
"""Seconds a thread stays with one stream before others have their turn."""
_RESET: Final = pack("ii", 1, 0)
"""SO_LINGER: the last to close drops what waits to be sent."""


class StopReason(Enum):
    """Why a turn ended."""

    SLICE_USED = "turn-over"
    WOULD_BLOCK = "client-full"
    PEER_UNREAD = "client-behind"
    """What went out by its pages has to be read before the last of all bytes may go."""
    DISCONNECTED = "client-gone"
    FILE_CHANGED = "changed"
    """The file is not any more what it was when it was opened."""
    STORAGE_ERROR = "fault"
    """The storage failed."""

    # Asked of each chunk: an enumeration's own hash is computed in Python.
    __hash__ = object.__hash__


RESUMABLE: Final = frozenset({StopReason.SLICE_USED, StopReason.WOULD_BLOCK})
"""Nothing is wrong: more goes out, at once or when the client has room."""


class SendResult(NamedTuple):
    """What one turn did."""

    sent: int
    stop_reason: StopReason
    error: OSError | None = None


class FileSender:
    """One file and one socket, each by a descriptor of its own; used by one thread at a time."""

    def __init__(self, file: OpenFile, socket_fd: int, promised: int) -> None:
        """Take over `file`, and a duplicate of the socket's descriptor; `promised` bytes will be sent.

        Where this raises, OSError for want of descriptors, `file` is still the caller's.
        """
        self._file = file
        self._socket = _duplicate(socket_fd)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLOUT)
        self._expected = promised
        self._chunk = FIRST_CHUNK_BYTES
        self._average_chunk_s = INITIAL_AVERAGE_S
        self.queues = SocketQueues(self._socket)
        self._sent_as_pages = 0
        """How much was sent when pages were handed over last."""
        self._closed = False
        self._closing = threading.Lock()
        self._in_use = threading.Lock()
        self.sent = 0
        """Bytes of the file so far; a thread may be adding to them."""

    @property
    def socket_fd(self) -> int:
        """The descriptor to wait on for the client to take more; below 0 once it is closed."""
        return self._socket.fileno()

    @property
    def in_use(self) -> bool:
        """Whether a thread is in `send` or `step`."""
        return self._in_use.locked()

    @property
    def is_fast(self) -> bool:
        """Whether the storage, as far as it was asked, keeps a thread no longer than memory would."""
        return self._average_chunk_s < FAST_CHUNK_S

    def acked_bytes(self) -> int:
        """Count the bytes that the client's system has taken."""
        try:
            return max(0, self.sent - self.queues.unacked())
        except OSError:
            return self.sent

    def unacked_bytes(self) -> int:
        """Count the bytes that the client's system has not taken yet; OSError."""
        return self._expected - self.sent + self.queues.unacked()

    def unread_by_peer(self) -> int:
        """Count the bytes that a client on this host has not read yet; all where that can't be told."""
        try:
            return self.queues.unread()
        except OSError:
            return self.sent

    def has_unread_pages(self) -> bool:
        """Whether pages that were handed over may be unread: what is written to them now would go out."""
        return (
            bool(self._sent_as_pages)
            and self.queues.is_local_peer
            and self.unread_by_peer() > self.sent - self._sent_as_pages
        )

    def closed_by_client(self) -> bool:
        """Whether the client has closed his side, or both: until more bytes go that looks alike."""
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Give both descriptors back."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        try:
            self._socket.close()
        finally:
            self._file.close()

    def abort(self) -> None:
        """End the connection for the client; at any time, from any thread, and without a wait.

        A thread that hangs in a call keeps its socket open whoever else closes it. So the end is told at
        once, and what still waits for the client is dropped with the last descriptor.
        """
        with self._closing, suppress(OSError):
            if not self._closed:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._socket.shutdown(socket.SHUT_RDWR)

    def send_slice(self, start: int, stop: int) -> SendResult:
        """Send what of the bytes from `start` to before `stop` goes out in one turn; never raises OSError."""
        self.cork(1)
        over, at, last = monotonic() + SLICE_S, start, SendResult(0, StopReason.SLICE_USED)
        while at < stop and monotonic() < over and last.stop_reason is StopReason.SLICE_USED:
            last = self.send_chunk(at, stop)
            at += last.sent
        self.cork(0)
        return last._replace(sent=at - start)

    def send_chunk(self, at: int, stop: int) -> SendResult:
        """Send one chunk of these bytes, or what of it the client has room for; never raises OSError."""
        with self._in_use:
            begun = monotonic()
            turn = self._sendfile_chunk(at, stop)
            self.sent += turn.sent
            if turn.sent:
                self._pace(monotonic() - begun)
            return turn

    def cork(self, held: int) -> None:
        """Have packets go out full (tcp(7), TCP_CORK), or all that is there: small ones cost a fifth more.

        Where the socket is none of TCP's, or broken, nothing is lost but that: what is sent next tells.
        """
        with suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, held)

    @cached_property
    def _sendfile_end(self) -> int:
        """How much may be sent by its pages: what comes after it may all wait for the client."""
        return self._expected - self.queues.max_buffered()

    def _sendfile_chunk(self, at: int, stop: int) -> SendResult:
        """Send some bytes: by their pages, as long as more than may wait for the client comes after them."""
        count = min(self._chunk, stop - at - COPY_BYTES, self._sendfile_end - self.sent)
        if count > 0:
            try:
                sent = os.sendfile(self.socket_fd, self._file.fd, at, count)
            except BlockingIOError:
                if not self._free_buffer():
                    return SendResult(0, StopReason.WOULD_BLOCK)
            except OSError:
                pass
            else:
                self._sent_as_pages = self.sent + sent
                return SendResult(sent, _stop_reason_of(sent, count) if sent else StopReason.FILE_CHANGED)
            # It does not say which side it was. Reading and writing, each by itself, do.
        return self._copy_chunk(at, min(at + COPY_BYTES, stop), last=at + COPY_BYTES >= stop)

    def _copy_chunk(self, at: int, stop: int, *, last: bool) -> SendResult:
        if self.sent + stop - at >= self._expected and self.has_unread_pages():
            return SendResult(0, StopReason.PEER_UNREAD)
        try:
            piece = read_fully(self._file.fd, at, stop - at)
            if len(piece) < stop - at or (last and changed(self._file)):
                return SendResult(0, StopReason.FILE_CHANGED)
        except OSError as fault:
            return SendResult(0, StopReason.STORAGE_ERROR, fault)
        try:
            sent = os.write(self.socket_fd, piece)
            return SendResult(sent, _stop_reason_of(sent, len(piece)))
        except BlockingIOError:
            return SendResult(0, StopReason.WOULD_BLOCK)
        except OSError:
            return SendResult(0, StopReason.DISCONNECTED)

    def _free_buffer(self) -> bool:
        """Whether the client takes more, or is gone."""
        return bool(self._poll.poll(0))

    def _pace(self, seconds: float) -> None:
        self._average_chunk_s += (seconds - self._average_chunk_s) * AVERAGE_WEIGHT
        if seconds > SLOW_CHUNK_S:
            self._chunk = max(self._chunk // 2, FIRST_CHUNK_BYTES // 4)
        else:
            self._chunk = min(self._chunk * 2, MAX_CHUNK_BYTES)


def _duplicate(socket_fd: int) -> socket.socket:
    """Return a socket of a descriptor of its own; OSError."""
    fd = os.dup(socket_fd)
    try:
        return socket.socket(fileno=fd)
    except BaseException:
        os.close(fd)
        raise


def _stop_reason_of(sent: int, count: int) -> StopReason:
    """Say what it means that a client took so many of `count` bytes: after less, to go on at once is vain."""
    return StopReason.SLICE_USED if sent == count else StopReason.WOULD_BLOCK


def changed(file: OpenFile) -> bool:
    """Whether the open file was written to since it was opened; OSError where storage won't say.

    A rename over it, or its removal, takes a link away and so changes its ctime: that is no change of it.
    A new owner, mode or link changes it too, and counts as a change: who writes in place and sets the mtime
    back, as copying tools do, may do one of these besides, and nothing tells then that this is not all.
    A file that may grow has not changed where a file that may grow has grown.
    """
    status = os.fstat(file.fd)
    _, size, mtime_ns, ctime_ns = file.version.parts()
    if file.fingerprint is not None:
        return status.st_size < size or fingerprint(file.fd, size) != file.fingerprint
    if status.st_size != size or status.st_mtime_ns != mtime_ns:
        return True
    return status.st_ctime_ns != ctime_ns and status.st_nlink >= file.link_count
