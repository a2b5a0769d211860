"""Open a file that only one process uses at a time."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from jobsvc.client.download.local.safe_files import FLAGS, check_regular

_FLAGS: Final = FLAGS | os.O_RDWR | os.O_CREAT
_ATTEMPTS: Final = 100
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
"""The file system has no locks."""


class InUse(Exception):
    """Another process has locked the file."""


def open_locked(path: Path) -> int:
    """Open a file for reading and writing, create it if necessary, and lock it; return the descriptor.

    Raises InUse at once if it is locked. Raises OSError if it is a symbolic link, or no regular file.
    """
    for _ in range(_ATTEMPTS):
        fd = os.open(path, _FLAGS, 0o666)
        try:
            check_regular(fd, path)
            _lock(fd, path)
            # The process that had the lock may have renamed or deleted the file.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.lstat(path)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        unlock(fd, path)
    raise InUse


def unlock(fd: int, path: Path) -> None:
    """Unlock the file, and close it."""
    os.close(fd)
    if sys.platform == "win32":
        _unlock_windows(path)


if sys.platform == "win32":
    import msvcrt

    _windows_locks: dict[Path, int] = {}

    def _lock(_fd: int, path: Path) -> None:
        """Lock a file beside it: on Windows a locked byte can neither be read nor written."""
        lock_file = path.with_name(f"{path.name}.lock")
        fd = os.open(lock_file, os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError as exc:
            os.close(fd)
            raise InUse from exc
        _windows_locks[path] = fd

    def _unlock_windows(path: Path) -> None:
        fd = _windows_locks.pop(path, None)
        if fd is not None:
            os.close(fd)
            with suppress(OSError):  # another process has opened it
                path.with_name(f"{path.name}.lock").unlink()

else:
    import fcntl

    def _lock(fd: int, _path: Path) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno not in _NO_LOCKS:
                raise InUse from exc
