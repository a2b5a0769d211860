"""Open, check and lock private files in the state directory. Blocking.

A file is rejected if users other than its owner can read or write it, or if it is not a regular file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from jobsvc.storage.files.atomic_write import chown_to_folder_owner
from jobsvc.storage.layout import TEMP_PREFIX

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def open_private(path: Path, open_file: Callable[[Path, int], int] = os.open) -> Iterator[int]:
    """Open a file for reading, for the length of a `with` block; raises OSError.

    Does not follow symbolic links, block on a FIFO, or make a terminal the controlling terminal.
    """
    descriptor = open_file(path, _READ)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Wait for the file's lock and hold it, for the length of a `with` block; raises OSError.

    The lock file is beside the file. It is never removed: otherwise two processes could each hold a lock.
    """
    descriptor = os.open(path.with_name(f"{TEMP_PREFIX}{path.name}.lock"), _LOCK, 0o600)
    try:
        chown_to_folder_owner(descriptor, path.parent)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as fault:
            if fault.errno in _NO_LOCKS:
                message = f"{fault.strerror}; put the state directory on a file system that supports flock"
                raise OSError(fault.errno, message, str(path.parent)) from fault
            raise
        yield
    finally:
        os.close(descriptor)


def check_private(status: os.stat_result, cap: int) -> None:
    """Raise ValueError unless this is a regular file that only its owner can read or write.

    Also if it is larger than `cap` bytes. The message is a predicate, to follow the file's name.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_mode & 0o077:
        raise ValueError("users other than its owner can read or write it; run chmod 600 on it")
    if status.st_size > cap:
        raise ValueError(f"larger than {cap} bytes")


def reason(fault: OSError) -> str | None:
    """Return why a file cannot be opened, as text."""
    return "a symbolic link" if fault.errno == errno.ELOOP else fault.strerror
