"""Read a file's birth time with statx(2); os.stat lacks it on Linux (Python 3.11). Blocking."""

from __future__ import annotations

import ctypes
from struct import Struct
from typing import Final

_AT_EMPTY_PATH: Final = 0x1000
_STATX_BTIME: Final = 0x800
_SIZE: Final = 256
_MASK: Final = Struct("=I")
_BTIME: Final = Struct("=qI")
"""Format of stx_btime: seconds and nanoseconds."""
_BTIME_OFFSET: Final = 80

_libc: Final = ctypes.CDLL(None)
_statx: Final = getattr(_libc, "statx", None)
"""None if the C library has no statx (glibc before 2.28)."""


def birth_time(fd: int) -> int | None:
    """Return the birth time of an open file or directory, in microseconds since the epoch.

    None if the file system does not report it.
    """
    if _statx is None:
        return None
    buffer = ctypes.create_string_buffer(_SIZE)
    if _statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer) != 0:
        return None
    (mask,) = _MASK.unpack_from(buffer)
    seconds, nanoseconds = _BTIME.unpack_from(buffer, _BTIME_OFFSET)
    return seconds * 1_000_000 + nanoseconds // 1000 if mask & _STATX_BTIME and seconds > 0 else None
