"""Send the bytes of a response body to a socket, in slices or chunks; blocking, runs in storage threads.

This is the side of the socket: where the bytes come from is up to `file_sender.py` and
`storage/archive/archive_sender.py`.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from enum import Enum, auto
from struct import pack
from time import monotonic
from typing import Final, NamedTuple

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


class SocketSender(ABC):
    """One socket, with a descriptor of its own. Only one thread at a time may send."""

    def __init__(self, socket_fd: int, expected: int) -> None:
        """Duplicate the socket's descriptor; `expected` bytes will be sent.

        Raises OSError if no descriptor is available.
        """
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
        """Bytes sent so far; a thread might be adding to it."""

    @property
    @abstractmethod
    def file_name(self) -> str | None:
        """The name of the file that is being read, or was last; for logs."""

    @abstractmethod
    def _send_some(self, at: int, stop: int) -> SendResult:
        """Send some bytes from offset `at` on, at most to before `stop`; raises no OSError."""

    @abstractmethod
    def _close_files(self) -> None:
        """Close everything but the socket; called once."""

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
        """Close all descriptors."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        try:
            self._socket.close()
        finally:
            self._close_files()

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
            result = self._send_some(at, stop)
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

    def _sendfile(self, fd: int, at: int, count: int) -> SendResult | None:
        """Send up to `count` bytes of a file with sendfile(2); none means that the file is shorter.

        Return None if it failed: the error does not say which side did. Separate read and write calls do.
        """
        try:
            sent = os.sendfile(self.socket_fd, fd, at, count)
        except BlockingIOError:
            return None if self._is_writable() else SendResult(0, StopReason.WOULD_BLOCK)
        except OSError:
            return None
        self._sent_by_sendfile = self.sent + sent
        return SendResult(sent, _stop_reason_of(sent, count) if sent else StopReason.FILE_CHANGED)

    def _write(self, piece: bytes | memoryview) -> SendResult:
        """Send bytes that are in memory, or as many as fit the socket buffer."""
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
