"""Reads a few bytes of an open file where that takes no wait: what is not in memory, is not read."""

from __future__ import annotations

import os
from typing import Final, TypeAlias

from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.sendfile.file_sender import changed

Body: TypeAlias = bytes | memoryview

SMALL_BODY_BYTES: Final = 64 * 1024
"""Bytes; a body up to this size goes out with its head in one write where it is in memory already."""


def read_cached(file: OpenFile, start: int, stop: int) -> bytes | None:
    """Read a few bytes if that takes no wait (preadv2(2), RWF_NOWAIT); None where they are not in memory.

    None too where the storage can't tell, and where the file is not any more what it was.
    """
    into = bytearray(stop - start)
    return bytes(into) if _read_nowait(file, into, start) else None


class ReadBuffer:
    """Reads likewise into one and the same memory, for who has written it out before he reads again."""

    def __init__(self) -> None:
        self.detach()

    def read(self, file: OpenFile, start: int, stop: int) -> memoryview | None:
        """Read at most SMALL bytes; they hold until the next call, unless they are left."""
        into = self._memory[: stop - start]
        return into if _read_nowait(file, into, start) else None

    def detach(self) -> None:
        """Leave what was read last to whoever still needs it."""
        self._memory = memoryview(bytearray(SMALL_BODY_BYTES))


def _read_nowait(file: OpenFile, into: bytearray | memoryview, start: int) -> bool:
    try:
        count = os.preadv(file.fd, [into], start, os.RWF_NOWAIT)
        return count == len(into) and not changed(file)
    except OSError:  # EAGAIN: not cached; EOPNOTSUPP: network file systems and FUSE don't say
        return False
