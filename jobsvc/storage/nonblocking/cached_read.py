"""Read a few bytes of an open file from the page cache, without blocking."""

from __future__ import annotations

import os
from typing import Final, TypeAlias

from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.sendfile.file_sender import is_changed

Body: TypeAlias = bytes | memoryview

SMALL_BODY_BYTES: Final = 64 * 1024
"""Bytes; a body up to this size is sent in one write with its head if it is in the page cache."""


def read_cached(file: OpenFile, start: int, stop: int) -> bytes | None:
    """Read a few bytes without blocking (preadv2(2), RWF_NOWAIT); None if they are not in the page cache.

    Returns None also if the file system does not support it, or the file has changed since it was opened.
    """
    into = bytearray(stop - start)
    return bytes(into) if _read_nowait(file, into, start) else None


class ReadBuffer:
    """Reads in the same way into one reused buffer: the bytes have to be sent before the next read."""

    def __init__(self) -> None:
        self.detach()

    def read(self, file: OpenFile, start: int, stop: int) -> memoryview | None:
        """Read at most SMALL_BODY_BYTES; the result is valid until the next call, or for good after `detach`.

        Returns None as `read_cached` does.
        """
        into = self._memory[: stop - start]
        return into if _read_nowait(file, into, start) else None

    def detach(self) -> None:
        """Allocate a new buffer, so that the bytes read last remain valid."""
        self._memory = memoryview(bytearray(SMALL_BODY_BYTES))


def _read_nowait(file: OpenFile, into: bytearray | memoryview, start: int) -> bool:
    try:
        count = os.preadv(file.fd, [into], start, os.RWF_NOWAIT)
        return count == len(into) and not is_changed(file)
    except OSError:  # EAGAIN: not cached; EOPNOTSUPP: network file systems and FUSE
        return False
