"""Hold descriptors open so that a file can be opened when the process has used up all others."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

RESERVED: Final = 4
"""More than one: between the release of a descriptor and open(2) another thread may take it."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})


class DescriptorReserve:
    """Some descriptors of /dev/null; used by one thread at a time."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def fill(self) -> None:
        """Take descriptors until the reserve is full, or there are no more."""
        with suppress(OSError):
            while len(self._held) < RESERVED:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def open(self, path: str | os.PathLike[str], flags: int) -> int:
        """Open a file as os.open does, with a descriptor of the reserve where there is no other. OSError."""
        while True:
            try:
                return os.open(path, flags)
            except OSError as exc:
                if exc.errno not in _EXHAUSTED or not self._held:
                    raise
            os.close(self._held.pop())

    def close(self) -> None:
        """Release all."""
        while self._held:
            os.close(self._held.pop())
