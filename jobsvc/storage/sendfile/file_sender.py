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

from jobsvc.storage.files.pread import read_fully, sample
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.sendfile.socket_queues import Backlog

FIRST_CHUNK: Final = 256 * 1024
LARGEST_CHUNK: Final = 4 * 1024 * 1024
"""Bytes asked of one sendfile call: few until storage proved quick, many once it did."""
SLOW: Final = 0.02
"""A chunk that took longer than this (seconds) has the next one halved."""
QUICK: Final = 0.005
"""Storage is quick where chunks take less than this (seconds) on average."""
UNPROVEN: Final = 0.007
"""What a chunk counts as before the first went: three that took no time prove it wrong."""
WEIGHT: Final = 1 / 8
"""That of the last chunk in the average."""
PIECE: Final = 128 * 1024
"""Bytes copied at once. Of a last piece the file is asked whether it changed before it goes out."""
TURN: Final = 0.1
"""Seconds a thread stays with one stream before others have their turn."""
_RESET: Final = pack("ii", 1, 0)
"""SO_LINGER: the last to close drops what waits to be sent."""


class Halt(Enum):
    """Why a turn ended."""

    TURN_OVER = "turn-over"
    CLIENT_FULL = "client-full"
    CLIENT_BEHIND = "client-behind"
    """What went out by its pages has to be read before the last of all bytes may go."""
    CLIENT_GONE = "client-gone"
    CHANGED = "changed"
    """The file is not any more what it was when it was opened."""
    FAULT = "fault"
    """The storage failed."""

    # Asked of each chunk: an enumeration's own hash is computed in Python.
    __hash__ = object.__hash__


UNDER_WAY: Final = frozenset({Halt.TURN_OVER, Halt.CLIENT_FULL})
"""Nothing is wrong: more goes out, at once or when the client has room."""


class Turn(NamedTuple):
    """What one turn did."""

    sent: int
    halt: Halt
    fault: OSError | None = None


class Conduit:
    """One file and one socket, each by a descriptor of its own; used by one thread at a time."""

    def __init__(self, file: OpenFile, socket_fd: int, promised: int) -> None:
        """Take over `file`, and a duplicate of the socket's descriptor; `promised` bytes will be sent.

        Where this raises, OSError for want of descriptors, `file` is still the caller's.
        """
        self._file = file
        self._socket = _duplicate(socket_fd)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLOUT)
        self._promised = promised
        self._chunk = FIRST_CHUNK
        self._average = UNPROVEN
        self.backlog = Backlog(self._socket)
        self._by_pages = 0
        """How much was sent when pages were handed over last."""
        self._closed = False
        self._closing = threading.Lock()
        self._moving = threading.Lock()
        self.sent = 0
        """Bytes of the file so far; a thread may be adding to them."""

    @property
    def socket_fd(self) -> int:
        """The descriptor to wait on for the client to take more; below 0 once it is closed."""
        return self._socket.fileno()

    @property
    def moving(self) -> bool:
        """Whether a thread is in `send` or `step`."""
        return self._moving.locked()

    @property
    def quick(self) -> bool:
        """Whether the storage, as far as it was asked, keeps a thread no longer than memory would."""
        return self._average < QUICK

    def accepted(self) -> int:
        """Count the bytes that the client's system has taken."""
        try:
            return max(0, self.sent - self.backlog.queued())
        except OSError:
            return self.sent

    def unaccepted(self) -> int:
        """Count the bytes that the client's system has not taken yet; OSError."""
        return self._promised - self.sent + self.backlog.queued()

    def waiting(self) -> int:
        """Count the bytes that a client on this host has not read yet; all where that can't be told."""
        try:
            return self.backlog.waiting()
        except OSError:
            return self.sent

    def behind(self) -> bool:
        """Whether pages that were handed over may be unread: what is written to them now would go out."""
        return bool(self._by_pages) and self.backlog.near and self.waiting() > self.sent - self._by_pages

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

    def cut(self) -> None:
        """End the connection for the client; at any time, from any thread, and without a wait.

        A thread that hangs in a call keeps its socket open whoever else closes it. So the end is told at
        once, and what still waits for the client is dropped with the last descriptor.
        """
        with self._closing, suppress(OSError):
            if not self._closed:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, start: int, stop: int) -> Turn:
        """Send what of the bytes from `start` to before `stop` goes out in one turn; never raises OSError."""
        self.cork(1)
        over, at, last = monotonic() + TURN, start, Turn(0, Halt.TURN_OVER)
        while at < stop and monotonic() < over and last.halt is Halt.TURN_OVER:
            last = self.step(at, stop)
            at += last.sent
        self.cork(0)
        return last._replace(sent=at - start)

    def step(self, at: int, stop: int) -> Turn:
        """Send one chunk of these bytes, or what of it the client has room for; never raises OSError."""
        with self._moving:
            begun = monotonic()
            turn = self._push(at, stop)
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
    def _pages_end(self) -> int:
        """How much may be sent by its pages: what comes after it may all wait for the client."""
        return self._promised - self.backlog.most()

    def _push(self, at: int, stop: int) -> Turn:
        """Send some bytes: by their pages, as long as more than may wait for the client comes after them."""
        count = min(self._chunk, stop - at - PIECE, self._pages_end - self.sent)
        if count > 0:
            try:
                sent = os.sendfile(self.socket_fd, self._file.fd, at, count)
            except BlockingIOError:
                if not self._room():
                    return Turn(0, Halt.CLIENT_FULL)
            except OSError:
                pass
            else:
                self._by_pages = self.sent + sent
                return Turn(sent, _halt_after(sent, count) if sent else Halt.CHANGED)
            # It does not say which side it was. Reading and writing, each by itself, do.
        return self._copy(at, min(at + PIECE, stop), last=at + PIECE >= stop)

    def _copy(self, at: int, stop: int, *, last: bool) -> Turn:
        if self.sent + stop - at >= self._promised and self.behind():
            return Turn(0, Halt.CLIENT_BEHIND)
        try:
            piece = read_fully(self._file.fd, at, stop - at)
            if len(piece) < stop - at or (last and changed(self._file)):
                return Turn(0, Halt.CHANGED)
        except OSError as fault:
            return Turn(0, Halt.FAULT, fault)
        try:
            sent = os.write(self.socket_fd, piece)
            return Turn(sent, _halt_after(sent, len(piece)))
        except BlockingIOError:
            return Turn(0, Halt.CLIENT_FULL)
        except OSError:
            return Turn(0, Halt.CLIENT_GONE)

    def _room(self) -> bool:
        """Whether the client takes more, or is gone."""
        return bool(self._poll.poll(0))

    def _pace(self, seconds: float) -> None:
        self._average += (seconds - self._average) * WEIGHT
        if seconds > SLOW:
            self._chunk = max(self._chunk // 2, FIRST_CHUNK // 4)
        else:
            self._chunk = min(self._chunk * 2, LARGEST_CHUNK)


def _duplicate(socket_fd: int) -> socket.socket:
    """Return a socket of a descriptor of its own; OSError."""
    fd = os.dup(socket_fd)
    try:
        return socket.socket(fileno=fd)
    except BaseException:
        os.close(fd)
        raise


def _halt_after(sent: int, count: int) -> Halt:
    """Say what it means that a client took so many of `count` bytes: after less, to go on at once is vain."""
    return Halt.TURN_OVER if sent == count else Halt.CLIENT_FULL


def changed(file: OpenFile) -> bool:
    """Whether the open file was written to since it was opened; OSError where storage won't say.

    A rename over it, or its removal, takes a link away and so changes its ctime: that is no change of it.
    A new owner, mode or link changes it too, and counts as a change: who writes in place and sets the mtime
    back, as copying tools do, may do one of these besides, and nothing tells then that this is not all.
    A file that may grow has not changed where a file that may grow has grown.
    """
    status = os.fstat(file.fd)
    _, size, mtime_ns, ctime_ns = file.identity.parts()
    if file.sample is not None:
        return status.st_size < size or sample(file.fd, size) != file.sample
    if status.st_size != size or status.st_mtime_ns != mtime_ns:
        return True
    return status.st_ctime_ns != ctime_ns and status.st_nlink >= file.links
