"""A file that lines are added to, and that makes room for itself: FILE, FILE.1 … FILE.N, the oldest last.

Plain sync code for one thread. A failed write leaves nothing open and no half line; a file that someone
moved away is begun anew.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class RotatingFile:
    """Lines in files of at most `cap` bytes each (one longer line apart), `kept` old ones; mode 0600."""

    def __init__(self, path: Path, cap: int, kept: int) -> None:
        self._path = path
        self._max_bytes = cap
        self._old_files = kept
        self._fd: int | None = None

    def append(self, line: bytes) -> None:
        """Add a line, given without its end; OSError if it could not be written whole."""
        try:
            fd = self._current(len(line) + 1)
            _write_whole(fd, line + b"\n")
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file; the next append opens it again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)

    def _current(self, more: int) -> int:
        """Return the descriptor of a file with room for so many bytes more."""
        fd = self._open()
        size = os.fstat(fd).st_size
        if size and size + more > self._max_bytes:
            self.close()
            self._rotate()
            fd = self._open()
        return fd

    def _open(self) -> int:
        if self._fd is not None and self._is_same_file(self._fd):
            return self._fd
        self.close()
        self._fd = os.open(self._path, _FLAGS, 0o600)
        _end_last_line(self._fd)
        return self._fd

    def _is_same_file(self, fd: int) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(self._path.stat(), os.fstat(fd))
        return False

    def _rotate(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, self._old_files + 1))]
        for older, newer in reversed(list(zip(names[1:], names, strict=False))):
            with suppress(FileNotFoundError):
                newer.replace(older)


def _end_last_line(fd: int) -> None:
    """End the line that a killed process left half written: the next one must not be glued to it."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        _write_whole(fd, b"\n")


def _write_whole(fd: int, data: bytes) -> None:
    """Write all of it or, as far as the file system lets us, nothing."""
    before = os.fstat(fd).st_size
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, before)
        raise
