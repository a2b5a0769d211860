"""Compute the CRC-32 of files for zip archives, and remember it for their versions, in memory only."""

from __future__ import annotations

import threading
import time
from typing import Final
from zlib import crc32

from jobsvc.storage.files.file_version import FileVersion

MAX_ENTRIES: Final = 200_000
"""Versions that are remembered: two jobs of the maximum size. Each needs about 200 bytes."""


class Crc32Table:
    """CRC-32 by file version; the oldest entries are dropped. Can be used in any thread."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._entries: dict[bytes, int] = {}
        self._lock = threading.Lock()
        """Held to write."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, version: FileVersion) -> int | None:
        """Return the CRC-32 of the file with this version, if it is known."""
        return self._entries.get(version)

    def put(self, version: FileVersion, crc: int) -> None:
        """Remember a CRC-32, unless another file could have the same version.

        This is possible without an inode number, and for a file that was modified a moment ago.
        """
        if not version.inode or not version.is_stable(time.time_ns()):
            return
        with self._lock:
            self._entries.pop(version, None)
            self._entries[version] = crc
            while len(self._entries) > self._max_entries:
                del self._entries[next(iter(self._entries))]


class RunningCrc:
    """Computes the CRC-32 of one file after the other, each from its beginning to its end."""

    def __init__(self) -> None:
        self.value = 0
        self._file: int | None = None
        self._offset = 0

    def offset(self, file: int) -> int:
        """Return how many bytes of the file with this index are included; 0 of any but the latest file."""
        return self._offset if file == self._file else 0

    def add(self, file: int, start: int, data: memoryview) -> None:
        """Include the next bytes of a file. Raises ValueError if these are others."""
        if not start:
            self.value, self._file, self._offset = 0, file, 0
        if start != self.offset(file):
            raise ValueError(f"bytes from {start} of file {file} do not follow {self.offset(file)}")
        self.value = crc32(data, self.value)
        self._offset += len(data)
