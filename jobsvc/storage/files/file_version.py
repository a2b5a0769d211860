"""Which version of a file it is, by what stat(2) tells of it. Pure."""

from __future__ import annotations

import os
from struct import Struct
from typing import Final, Self

TIMESTAMP_GRANULARITY_NS: Final = 2_000_000_000
"""A file changed less than this ago may change again within its clock's tick, unseen (FAT and SMB: 2 s)."""


class FileVersion(bytes):
    """What tells one version of a file from another; no part of it does alone.

    Packed, since one is kept for each job that is known: a tuple of numbers takes three times the room.
    """

    __slots__ = ()

    def __new__(cls, inode: int, size: int, mtime_ns: int, ctime_ns: int) -> Self:
        """Pack the numbers that stat(2) gives."""
        return super().__new__(cls, pack(inode, size, mtime_ns, ctime_ns))

    @classmethod
    def from_packed(cls, packed: bytes) -> Self:
        """Take the bytes of one for it."""
        return bytes.__new__(cls, packed)

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Take the identity out of what fstat said."""
        return bytes.__new__(cls, packed_from(status))

    @property
    def inode(self) -> int:
        """The inode's number."""
        return self._part(0)

    @property
    def size(self) -> int:
        """Bytes."""
        return self._part(1)

    @property
    def mtime_ns(self) -> int:
        """Nanoseconds since the epoch, as is the next."""
        return self._part(2) * _SECOND + self._part(3)

    @property
    def ctime_ns(self) -> int:
        """When the inode was last changed, which nobody can set back."""
        return self._part(4) * _SECOND + self._part(5)

    def parts(self) -> tuple[int, int, int, int]:
        """Give inode, size, mtime_ns and ctime_ns at once."""
        inode, size, mtime, mtime_part, ctime, ctime_part = _FORMAT.unpack(self)
        return inode, size, mtime * _SECOND + mtime_part, ctime * _SECOND + ctime_part

    def is_stable(self, now_ns: int) -> bool:
        """Whether any change after `now_ns`, in nanoseconds since the epoch, makes it another."""
        _, _, mtime_ns, ctime_ns = self.parts()
        return is_stable(mtime_ns, ctime_ns, now_ns)

    def _part(self, place: int) -> int:
        part: int = _FORMAT.unpack(self)[place]
        return part


def packed_from(status: os.stat_result) -> bytes:
    """Take the bytes of an identity out of what fstat said."""
    return pack(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_stable(mtime_ns: int, ctime_ns: int, now_ns: int) -> bool:
    """Whether any change after `now_ns`, in nanoseconds since the epoch, makes it another version."""
    return now_ns - max(mtime_ns, ctime_ns) > TIMESTAMP_GRANULARITY_NS


def pack(inode: int, size: int, mtime_ns: int, ctime_ns: int) -> bytes:
    """Give the bytes of an identity."""
    return _FORMAT.pack(
        inode, size, mtime_ns // _SECOND, mtime_ns % _SECOND, ctime_ns // _SECOND, ctime_ns % _SECOND
    )


# Seconds and nanoseconds apart, as the kernel has them: in one such number the year 2262 is the last.
_FORMAT: Final = Struct("<QQqIqI")
_SECOND: Final = 1_000_000_000
PACKED_SIZE: Final = _FORMAT.size
"""Bytes of each."""
