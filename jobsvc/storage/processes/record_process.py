"""Condenses large records in a process of its own: decoding one holds the interpreter's lock for too long.

A record of 1 MiB may have a third of a million empty lists; to decode it in a thread of the service stops its
event loop for a tenth of a second. The process begins with the first large record, and ends with the service.
A large record is never decoded in the service itself: where the process is busy with others or gives no
answer, that is a fault of storage (OSError) for this job alone, which is looked at again later.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import subprocess
import threading
from typing import Final

import structlog

from jobsvc.domain.large_record import SplitRecord, split_record
from jobsvc.storage.processes import child_command

DEADLINE_S: Final = 5.0
"""For one record; the process begins within it too."""
END_TIMEOUT_S: Final = 1.0
LOCK_TIMEOUT_S: Final = 1.0
"""How long a thread waits for those before it."""
MAX_WAITING: Final = 4
"""Threads that may wait for those before them; others are needed for records that are not large."""

_LENGTH: Final = struct.Struct("<I")
_ANSWER: Final = struct.Struct("<BII")
"""Whether the record is JSON, and the lengths of both parts; the second of no metadata is _NONE."""
_NONE: Final = (1 << 32) - 1

log = structlog.get_logger("jobsvc.storage")


class RecordProcess:
    """The process, and the way to it. For any thread but that of the loop."""

    def __init__(self, deadline: float = DEADLINE_S) -> None:
        self._deadline = deadline
        self._places = threading.BoundedSemaphore(1 + MAX_WAITING)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process's id, while there is one."""
        return None if self._process is None else self._process.pid

    def check_waiting(self) -> None:
        """Raise OSError (EBUSY) where so many threads wait that `condense` would refuse a record."""
        if not self._places.acquire(blocking=False):
            raise _busy()
        self._places.release()

    def split(self, text: bytes) -> SplitRecord:
        """Condense a record; ValueError if it is not JSON, OSError where the process gives no answer."""
        if not self._places.acquire(blocking=False):
            raise _busy()
        try:
            if not self._lock.acquire(timeout=LOCK_TIMEOUT_S):
                raise _busy()
            try:
                return self._answer(text)
            finally:
                self._lock.release()
        finally:
            self._places.release()

    def close(self) -> None:
        """End the process."""
        self._closed = True
        with self._lock:
            self._kill()

    def _answer(self, text: bytes) -> SplitRecord:
        """Ask the process, and a new one where that had ended since it was asked last."""
        if self._closed:
            raise OSError(errno.ECANCELED, "the service ends")
        try:
            return self._ask_or_end(text)
        except ConnectionError:
            pass
        except OSError as fault:
            raise _no_answer() from fault
        try:
            return self._ask_or_end(text)
        except OSError as fault:
            raise _no_answer() from fault

    def _ask_or_end(self, text: bytes) -> SplitRecord:
        try:
            return self._ask(text)
        except OSError as fault:
            log.warning("record-process-lost", reason=str(fault) or type(fault).__name__)
            self._kill()
            raise

    def _ask(self, text: bytes) -> SplitRecord:
        link = self._socket or self._spawn()
        link.sendall(_LENGTH.pack(len(text)) + text)
        sound, length, metadata_length = _ANSWER.unpack(_receive(link, _ANSWER.size))
        record = _receive(link, length)
        if not sound:
            raise ValueError(record.decode())
        return SplitRecord(record, None if metadata_length == _NONE else _receive(link, metadata_length))

    def _spawn(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(self._deadline)
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - a module of ours
                    child_command.command("jobsvc.storage.processes.record_process"),
                    stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL,
                    env=child_command.environment(), cwd=child_command.CWD,
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        self._socket = ours
        return ours

    def _kill(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(END_TIMEOUT_S)  # it ends by itself once our side is closed
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _busy() -> OSError:
    return OSError(errno.EBUSY, "too many large records at once")


def _no_answer() -> OSError:
    return OSError(errno.EIO, "the process that decodes large records gives no answer")


def _receive(link: socket.socket, length: int) -> bytes:
    """Receive so many bytes; ConnectionError where the other side ends before, TimeoutError."""
    data = bytearray(length)
    view, count = memoryview(data), 0
    while count < length:
        received = link.recv_into(view[count:])
        if not received:
            raise ConnectionError("it ended")
        count += received
    return bytes(data)


def _answer(text: bytes) -> bytes:
    try:
        record, metadata = split_record(text)
    except ValueError as wrong:
        message = str(wrong).encode("utf-8", "replace")
        return _ANSWER.pack(0, len(message), _NONE) + message
    if metadata is None:
        return _ANSWER.pack(1, len(record), _NONE) + record
    return _ANSWER.pack(1, len(record), len(metadata)) + record + metadata


def main() -> None:
    """Answer until the service closes its side."""
    import gc  # noqa: PLC0415 - for this process alone
    import signal  # noqa: PLC0415

    gc.disable()  # nothing here outlives its answer, or is part of a cycle
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key pressed at the service's terminal
    with socket.socket(fileno=0) as link, contextlib.suppress(ConnectionError):
        while True:
            (length,) = _LENGTH.unpack(_receive(link, _LENGTH.size))
            link.sendall(_answer(_receive(link, length)))


if __name__ == "__main__":
    main()
