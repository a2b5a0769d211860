"""Append lines to a file and rotate it: FILE, FILE.1 … FILE.N, the oldest last.

Blocking; for one thread. A failed write leaves nothing open and no partial line. A file that was moved away
is created again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class RotatingFile:
    """Lines in files of up to `max_bytes` each, more only for a longer line; mode 0600."""

    def __init__(self, path: Path, max_bytes: int, old_files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._old_files = old_files
        self._fd: int | None = None

    def append(self, line: bytes) -> None:
        """Append a line, given without its line break; raises OSError if it cannot be written completely."""
        try:
            fd = self._current(len(line) + 1)
            _write_whole(fd, line + b"\n")
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; the next append opens it again."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)

    def _current(self, more: int) -> int:
        """Return the descriptor of a file with room for `more` bytes; rotates if necessary."""
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
    """End a line that a killed process left incomplete, so that the next one is not joined to it."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        _write_whole(fd, b"\n")


def _write_whole(fd: int, data: bytes) -> None:
    """Write all bytes or, if the file system allows the file to be truncated again, none.

    Raises OSError.
    """
    before = os.fstat(fd).st_size
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, before)
        raise
