"""Keep spare descriptors, so that a file can be opened after the process has reached its limit."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

RESERVED: Final = 4
"""Number of spare descriptors. More than one: another thread may take one between close(2) and open(2)."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})


class DescriptorReserve:
    """Spare descriptors of /dev/null; used by one thread at a time."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def fill(self) -> None:
        """Open descriptors until the reserve is full or open(2) fails."""
        with suppress(OSError):
            while len(self._held) < RESERVED:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def open(self, path: str | os.PathLike[str], flags: int) -> int:
        """Open a file like os.open; release spare descriptors on EMFILE and ENFILE. Raises OSError."""
        while True:
            try:
                return os.open(path, flags)
            except OSError as exc:
                if exc.errno not in _EXHAUSTED or not self._held:
                    raise
            os.close(self._held.pop())

    def close(self) -> None:
        """Close all spare descriptors."""
        while self._held:
            os.close(self._held.pop())
