"""Moves bytes from an open file to a socket by sendfile(2), a turn at a time, in Disk's threads.

The file is watched while it goes out: one that shrank, or was written to in place, is found out before its
last byte is sent, so that nothing wrong is ever finished cleanly.
"""

from __future__ import annotations

import errno
import os
import select
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Final

from jobsvc.storage.reader import OpenFile
from jobsvc.storage.tail import read_fully, sample

FIRST_CHUNK: Final = 256 * 1024
LARGEST_CHUNK: Final = 4 * 1024 * 1024
"""Bytes asked of one sendfile call: few until storage proved quick, many once it did."""
QUICK: Final = 0.02
"""A chunk that took longer than this (seconds) has the next one halved."""
TAIL: Final = 16 * 1024
"""The last bytes are read, the file is asked whether it changed, and only then do they go out."""
TURN: Final = 0.1
"""Seconds a thread stays with one stream before others have their turn."""
LINGER: Final = 2
"""Milliseconds that a thread waits for a client that takes bytes as fast as we give them."""
_CLIENT_GONE: Final = frozenset(
    {
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ENOTCONN,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
    }
)


class Halt(Enum):
    """Why a turn ended."""

    TURN_OVER = "turn-over"
    CLIENT_FULL = "client-full"
    CLIENT_GONE = "client-gone"
    CHANGED = "changed"
    """The file is not any more what it was when it was opened."""
    FAULT = "fault"
    """The storage failed."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did."""

    sent: int
    halt: Halt
    fault: OSError | None = None


class Conduit:
    """One file and one socket, each by a descriptor of its own; used by one thread at a time."""

    def __init__(self, file: OpenFile, socket_fd: int) -> None:
        """Take over `file`, and a duplicate of the socket's descriptor."""
        self._file = file
        self._socket = os.dup(socket_fd)
        self._chunk = FIRST_CHUNK
        self._closed = False

    @property
    def socket_fd(self) -> int:
        """The descriptor to wait on for the client to take more."""
        return self._socket

    def close(self) -> None:
        """Give both descriptors back."""
        if not self._closed:
            self._closed = True
            os.close(self._socket)
            self._file.close()

    def send(self, start: int, stop: int) -> Turn:
        """Send what of the bytes from `start` to before `stop` goes out in one turn; never raises OSError."""
        over, at, halt = monotonic() + TURN, start, Halt.TURN_OVER
        try:
            while at < stop and (begun := monotonic()) < over:
                try:
                    sent = self._push(at, stop)
                except BlockingIOError:
                    if at == start or not self._drains():
                        halt = Halt.CLIENT_FULL
                        break
                    continue
                if sent == 0:
                    halt = Halt.CHANGED
                    break
                at += sent
                self._pace(monotonic() - begun)
        except OSError as fault:
            if fault.errno in _CLIENT_GONE:
                return Turn(at - start, Halt.CLIENT_GONE)
            return Turn(at - start, Halt.FAULT, fault)
        return Turn(at - start, halt)

    def _push(self, at: int, stop: int) -> int:
        """Send some bytes; 0 where the file is not what it was."""
        left = stop - at
        if left > TAIL:
            return os.sendfile(self._socket, self._file.fd, at, min(left - TAIL, self._chunk))
        last = read_fully(self._file.fd, at, left)
        if len(last) < left or changed(self._file):
            return 0
        return os.write(self._socket, last)

    def _drains(self) -> bool:
        """Whether the client makes room at once; worth a short wait in the thread, which saves two hops."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(LINGER))

    def _pace(self, seconds: float) -> None:
        if seconds > QUICK:
            self._chunk = max(self._chunk // 2, FIRST_CHUNK // 4)
        else:
            self._chunk = min(self._chunk * 2, LARGEST_CHUNK)


def changed(file: OpenFile) -> bool:
    """Whether the open file was written to since it was opened; OSError where storage won't say.

    A rename over it, or its removal, takes a link away and so changes its ctime: that is no change of it.
    Nor is it one where a file that may grow has grown.
    """
    status, was = os.fstat(file.fd), file.identity
    if file.sample is not None:
        return status.st_size < was.size or sample(file.fd, was.size) != file.sample
    if (status.st_size, status.st_mtime_ns) != (was.size, was.mtime_ns):
        return True
    return status.st_ctime_ns != was.ctime_ns and status.st_nlink >= file.links


def read_cached(file: OpenFile, start: int, stop: int) -> bytes | None:
    """Read a few bytes if that takes no wait (preadv2(2), RWF_NOWAIT); None where they are not in memory.

    None too where the storage can't tell, and where the file is not any more what it was.
    """
    into = bytearray(stop - start)
    try:
        count = os.preadv(file.fd, [into], start, os.RWF_NOWAIT)
    except OSError:  # EAGAIN: not cached; EOPNOTSUPP: network file systems and FUSE don't say
        return None
    return bytes(into) if count == len(into) and not changed(file) else None
