"""The birth time of a file by statx(2), which os.stat does not give on Linux (Python 3.11). Blocking."""

from __future__ import annotations

import ctypes
from struct import Struct
from typing import Final

_AT_EMPTY_PATH: Final = 0x1000
_STATX_BTIME: Final = 0x800
_SIZE: Final = 256
_MASK: Final = Struct("=I")
_BTIME: Final = Struct("=qI")
"""Seconds and nanoseconds."""
_BTIME_OFFSET: Final = 80

_libc: Final = ctypes.CDLL(None)
_statx: Final = getattr(_libc, "statx", None)
"""None where the C library is older than glibc 2.28."""


def birth_time(fd: int) -> int | None:
    """Return when an open file or directory was created, in microseconds since the epoch.

    None where its file system does not tell.
    """
    if _statx is None:
        return None
    buffer = ctypes.create_string_buffer(_SIZE)
    if _statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) != 0:
        return None
    (mask,) = _MASK.unpack_from(buffer)
    seconds, nanoseconds = _BTIME.unpack_from(buffer, _BTIME_OFFSET)
    return seconds * 1_000_000 + nanoseconds // 1000 if mask & _STATX_BTIME and seconds > 0 else None
