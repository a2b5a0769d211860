"""Split large records in a separate process, because decoding one holds the GIL for too long.

A record of 1 MiB can contain a third of a million empty lists; decoding it in a thread of the service stops
the event loop for a tenth of a second. The process starts with the first large record and ends with the
service. A large record is never decoded in the service itself: if the process is busy or does not respond,
that is a storage fault (OSError) for this job alone, and the job is read again later.
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

SOCKET_TIMEOUT_S: Final = 5.0
"""Seconds to wait for the process to take and return one record, its start included; per socket call."""
END_TIMEOUT_S: Final = 1.0
LOCK_TIMEOUT_S: Final = 1.0
"""Seconds that a thread waits for the threads before it."""
MAX_WAITING: Final = 4
"""Maximum number of waiting threads; the others are needed for records that are not large."""

_LENGTH: Final = struct.Struct("<I")
_REPLY: Final = struct.Struct("<BII")
"""Whether the record is JSON, and the lengths of both parts; _NONE if there is no metadata."""
_NONE: Final = (1 << 32) - 1

log = structlog.get_logger("jobsvc.storage")


class RecordProcessClient:
    """The process and its socket. Blocking; for any thread except the event loop's."""

    def __init__(self, socket_timeout: float = SOCKET_TIMEOUT_S) -> None:
        self._socket_timeout = socket_timeout
        self._slots = threading.BoundedSemaphore(1 + MAX_WAITING)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process's id, or None if it is not running."""
        return None if self._process is None else self._process.pid

    def check_waiting(self) -> None:
        """Raise OSError (EBUSY) if so many threads wait that `split` would refuse a record."""
        if not self._slots.acquire(blocking=False):
            raise _busy()
        self._slots.release()

    def split(self, text: bytes) -> SplitRecord:
        """Split a record; raises ValueError if it is not JSON.

        Raises OSError if the process is busy, does not respond or is closed.
        """
        if not self._slots.acquire(blocking=False):
            raise _busy()
        try:
            if not self._lock.acquire(timeout=LOCK_TIMEOUT_S):
                raise _busy()
            try:
                return self._request_with_retry(text)
            finally:
                self._lock.release()
        finally:
            self._slots.release()

    def close(self) -> None:
        """End the process; later calls of `split` raise OSError."""
        self._closed = True
        with self._lock:
            self._kill()

    def _request_with_retry(self, text: bytes) -> SplitRecord:
        """Send the record to the process; if it ended since the last record, retry once with a new one."""
        if self._closed:
            raise OSError(errno.ECANCELED, "the service is stopping")
        try:
            return self._request_or_kill(text)
        except ConnectionError:
            pass
        except OSError as error:
            raise _no_reply() from error
        try:
            return self._request_or_kill(text)
        except OSError as error:
            raise _no_reply() from error

    def _request_or_kill(self, text: bytes) -> SplitRecord:
        try:
            return self._request(text)
        except OSError as error:
            log.warning("record-process-lost", reason=str(error) or type(error).__name__)
            self._kill()
            raise

    def _request(self, text: bytes) -> SplitRecord:
        connection = self._socket or self._spawn()
        connection.sendall(_LENGTH.pack(len(text)) + text)
        is_json, length, metadata_length = _REPLY.unpack(_receive(connection, _REPLY.size))
        record = _receive(connection, length)
        if not is_json:
            raise ValueError(record.decode())
        return SplitRecord(
            record, None if metadata_length == _NONE else _receive(connection, metadata_length)
        )

    def _spawn(self) -> socket.socket:
        parent_end, child_end = socket.socketpair()
        parent_end.settimeout(self._socket_timeout)
        with child_end:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - a module of this package
                    child_command.command("jobsvc.storage.processes.record_process"),
                    stdin=child_end.fileno(), stdout=child_end.fileno(), stderr=subprocess.DEVNULL,
                    env=child_command.environment(), cwd=child_command.CWD,
                )  # fmt: skip
            except BaseException:
                parent_end.close()
                raise
        self._socket = parent_end
        return parent_end

    def _kill(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(END_TIMEOUT_S)  # it ends by itself once this side is closed
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _busy() -> OSError:
    return OSError(errno.EBUSY, "too many large records at the same time")


def _no_reply() -> OSError:
    return OSError(errno.EIO, "the process that decodes large records does not respond")


def _receive(connection: socket.socket, length: int) -> bytes:
    """Receive exactly `length` bytes; raises ConnectionError if the other side closes first, TimeoutError."""
    data = bytearray(length)
    view, count = memoryview(data), 0
    while count < length:
        received = connection.recv_into(view[count:])
        if not received:
            raise ConnectionError("the process ended")
        count += received
    return bytes(data)


def _reply_to(text: bytes) -> bytes:
    try:
        record, metadata = split_record(text)
    except ValueError as error:
        message = str(error).encode("utf-8", "replace")
        return _REPLY.pack(0, len(message), _NONE) + message
    if metadata is None:
        return _REPLY.pack(1, len(record), _NONE) + record
    return _REPLY.pack(1, len(record), len(metadata)) + record + metadata


def main() -> None:
    """Reply to requests until the service closes its side."""
    import gc  # noqa: PLC0415 - for this process alone
    import signal  # noqa: PLC0415

    gc.disable()  # nothing here outlives its reply or is part of a cycle
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the service's terminal
    with socket.socket(fileno=0) as connection, contextlib.suppress(ConnectionError):
        while True:
            (length,) = _LENGTH.unpack(_receive(connection, _LENGTH.size))
            connection.sendall(_reply_to(_receive(connection, length)))


if __name__ == "__main__":
    main()
