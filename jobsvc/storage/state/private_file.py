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
from typing import Final, TypeAlias

from jobsvc.storage.files.atomic_write import chown_to_folder_owner
from jobsvc.storage.files.pread import read_fully
from jobsvc.storage.files.safe_open import FILE_FLAGS
from jobsvc.storage.layout import TEMP_PREFIX

OpenFile: TypeAlias = Callable[[Path, int], int]
"""os.open, or a function like it."""


_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def open_private(path: Path, open_file: OpenFile = os.open) -> Iterator[int]:
    """Open a file for reading, for the length of a `with` block; raises OSError.

    Does not follow symbolic links, block on a FIFO, or make a terminal the controlling terminal.
    """
    descriptor = open_file(path, FILE_FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_private(path: Path, max_bytes: int, open_file: OpenFile = os.open) -> bytes:
    """Return the content of a private file; raises OSError, and ValueError as `check_private` does."""
    with open_private(path, open_file) as descriptor:
        status = os.fstat(descriptor)
        check_private(status, max_bytes)
        return read_fully(descriptor, 0, status.st_size)


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Wait for the file's lock and hold it, for the length of a `with` block; raises OSError.

    The lock file is in the same directory. It is never removed: otherwise two processes could each hold a
    lock.
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


def check_private(status: os.stat_result, max_bytes: int) -> None:
    """Raise ValueError unless this is a regular file that only its owner can read or write.

    Also if it is larger than `max_bytes`. The message is a predicate, to follow the file's name.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if status.st_mode & 0o077:
        raise ValueError("users other than its owner can read or write it; run chmod 600 on it")
    if status.st_size > max_bytes:
        raise ValueError(f"larger than {max_bytes} bytes")


@contextmanager
def errors_as(error: type[Exception], path: Path) -> Iterator[None]:
    """Raise `error`, whose message names the file and the problem, for OSError and ValueError."""
    try:
        yield
    except OSError as fault:
        reason = "a symbolic link" if fault.errno == errno.ELOOP else fault.strerror
        raise error(f"{path}: {reason}") from fault
    except ValueError as invalid:
        raise error(f"{path}: {invalid}") from invalid
