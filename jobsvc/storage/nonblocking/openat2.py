"""Open paths with openat2(2) from the kernel's caches only: without blocking, or not at all."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_OPENAT2: Final = 437
"""The system call's number, the same on all architectures."""
_RESOLVE_FLAGS: Final = 0x02 | 0x04 | 0x20
"""RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS and RESOLVE_CACHED (Linux 5.12)."""
_NAME: Final = os.O_PATH | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class _OpenHow(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_AS_NAME: Final = ctypes.byref(_OpenHow(_NAME, 0, _RESOLVE_FLAGS))
_AS_FILE: Final = ctypes.byref(_OpenHow(_FILE, 0, _RESOLVE_FLAGS))
_SIZE: Final = ctypes.sizeof(_OpenHow)
# Not ctypes.CDLL: a call that does not block need not release the GIL.
_syscall = ctypes.PyDLL(None).syscall


def try_open_name(path: bytes, folder: int = -1) -> int:
    """Open a path with O_PATH, which triggers no inotify watch; return a negative number on failure.

    A relative path starts in the directory `folder`.
    """
    fd: int = _syscall(_OPENAT2, folder, path, _AS_NAME, _SIZE)
    return fd


def try_open_file(path: bytes, folder: int) -> int:
    """Open a path in the directory `folder` for reading; return a negative number on failure."""
    fd: int = _syscall(_OPENAT2, folder, path, _AS_FILE, _SIZE)
    return fd


def path_has_version(path: bytes, parts: tuple[int, int, int, int], device: int, folder: int = -1) -> bool:
    """Return whether a path leads to this version of a file; False also if that is not cached.

    `parts`: the file's inode, size, mtime_ns and ctime_ns. `device`: its st_dev. A relative path starts in
    the directory `folder`.
    """
    fd = try_open_name(path, folder)
    if fd < 0:
        return False
    status = try_fstat(fd)
    os.close(fd)
    if status is None or status.st_dev != device:
        return False
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) == parts


def try_fstat(fd: int) -> os.stat_result | None:
    """Call fstat() on an open descriptor; None if its file system failed."""
    try:
        return os.fstat(fd)
    except OSError:
        return None
