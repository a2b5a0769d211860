"""Identify versions of a file by inode, size, mtime and ctime from stat(2). Pure."""

from __future__ import annotations

import os
from struct import Struct
from typing import Final, Self

TIMESTAMP_GRANULARITY_NS: Final = 2_000_000_000
"""Coarsest timestamp step (FAT and SMB: 2 s); a second change within one step is not visible in stat."""


class FileVersion(bytes):
    """Inode, size, mtime and ctime of a file; none of them alone identifies a version.

    Packed into bytes, because one is kept for each known job: a tuple of numbers takes three times as much.
    """

    __slots__ = ()

    def __new__(cls, inode: int, size: int, mtime_ns: int, ctime_ns: int) -> Self:
        """Pack the numbers from stat(2)."""
        return super().__new__(cls, pack(inode, size, mtime_ns, ctime_ns))

    @classmethod
    def from_packed(cls, packed: bytes) -> Self:
        """Return the version with these packed bytes."""
        return bytes.__new__(cls, packed)

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return the version in an fstat result."""
        return bytes.__new__(cls, packed_from(status))

    @property
    def inode(self) -> int:
        """Inode number; 0 if the file system does not keep it."""
        return self.parts()[0]

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.parts()[1]

    @property
    def mtime_ns(self) -> int:
        """Modification time, in nanoseconds since the epoch."""
        return self.parts()[2]

    @property
    def ctime_ns(self) -> int:
        """Time of the last inode change, in nanoseconds since the epoch; it cannot be set back."""
        return self.parts()[3]

    def parts(self) -> tuple[int, int, int, int]:
        """Return (inode, size, mtime_ns, ctime_ns)."""
        inode, size, mtime, mtime_part, ctime, ctime_part = _FORMAT.unpack(self)
        return inode, size, mtime * _SECOND + mtime_part, ctime * _SECOND + ctime_part

    def is_stable(self, now_ns: int) -> bool:
        """Return whether any change after `now_ns` (nanoseconds since the epoch) gives another version."""
        _, _, mtime_ns, ctime_ns = self.parts()
        return is_stable(mtime_ns, ctime_ns, now_ns)


def packed_from(status: os.stat_result) -> bytes:
    """Return the packed version in an fstat result."""
    return pack(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_stable(mtime_ns: int, ctime_ns: int, now_ns: int) -> bool:
    """Return whether any change after `now_ns` (nanoseconds since the epoch) gives another version."""
    return now_ns - max(mtime_ns, ctime_ns) > TIMESTAMP_GRANULARITY_NS


def pack(inode: int, size: int, mtime_ns: int, ctime_ns: int) -> bytes:
    """Return the packed version with these numbers."""
    return _FORMAT.pack(
        inode, size, mtime_ns // _SECOND, mtime_ns % _SECOND, ctime_ns // _SECOND, ctime_ns % _SECOND
    )


# Seconds and nanoseconds are separate, as in the kernel: 64 bits of nanoseconds end in the year 2262.
_FORMAT: Final = Struct("<QQqIqI")
_SECOND: Final = 1_000_000_000
PACKED_SIZE: Final = _FORMAT.size
"""Size of a packed version, in bytes."""
