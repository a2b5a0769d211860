"""Open, check, lock and write private files, in the state directory or in a secrets directory. Blocking.

In the state directory, a file is rejected if users other than its owner can read or write it, or if it is not
a regular file: symbolic links are not followed.

A secrets directory is made by others: by an administrator, or by Kubernetes, which makes each file a link to
`..data/NAME` and replaces the link `..data` when the secret changes. There (`shared=True`) links are
followed, and the group may read a file. What counts instead is who could have put the file there: it has to
belong to root, to the service's user or to the owner of the directory, and nobody else may be able to write
it, or to replace it in the directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from jobsvc.storage.files.atomic_write import chown_to_folder_owner, write_atomically
from jobsvc.storage.files.file_version import TIMESTAMP_GRANULARITY_NS, FileVersion
from jobsvc.storage.files.pread import read_fully
from jobsvc.storage.files.safe_open import FILE_FLAGS
from jobsvc.storage.layout import TEMP_PREFIX

OpenFile: TypeAlias = Callable[[Path, int], int]
"""os.open, or a function like it."""


_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_SWAP_TRIES: Final = 3
"""Attempts to open a link, whose target can be replaced while the path is resolved."""


@contextmanager
def open_private(path: Path, open_file: OpenFile = os.open, *, shared: bool = False) -> Iterator[int]:
    """Open a file for reading, for the length of a `with` block; raises OSError.

    Does not block on a FIFO, or make a terminal the controlling terminal. Symbolic links are only followed in
    a `shared` directory.
    """
    descriptor = _open_following(path, open_file) if shared else open_file(path, FILE_FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_following(path: Path, open_file: OpenFile) -> int:
    """Open a file through links. Between the link and its target, the old target may have been removed."""
    flags = FILE_FLAGS & ~os.O_NOFOLLOW
    for _ in range(_SWAP_TRIES - 1):
        try:
            return open_file(path, flags)
        except FileNotFoundError:
            if not path.is_symlink():
                raise
    return open_file(path, flags)


class VersionedData(NamedTuple):
    """The content of a file, and the version that it was read from."""

    version: FileVersion
    data: bytes


def read_if_changed(
    path: Path,
    known: FileVersion | None,
    max_bytes: int,
    open_file: OpenFile = os.open,
    *,
    shared: bool = False,
) -> VersionedData | None:
    """Read a private file; None if its version is `known` and cannot hide a later change.

    Raises OSError, and ValueError as `check_file` does.
    """
    with open_private(path, open_file, shared=shared) as descriptor:
        status = os.fstat(descriptor)
        version = FileVersion.of(status)
        if version == known and time.time_ns() - version.mtime_ns > TIMESTAMP_GRANULARITY_NS:
            return None
        check_file(path, status, max_bytes, shared=shared)
        return VersionedData(version, read_fully(descriptor, 0, status.st_size))


def read_private(path: Path, max_bytes: int, open_file: OpenFile = os.open, *, shared: bool = False) -> bytes:
    """Return the content of a private file; raises OSError, and ValueError as `check_file` does."""
    with open_private(path, open_file, shared=shared) as descriptor:
        status = os.fstat(descriptor)
        check_file(path, status, max_bytes, shared=shared)
        return read_fully(descriptor, 0, status.st_size)


def write_private(path: Path, data: bytes, *, shared: bool = False) -> None:
    """Replace a private file, under its lock; raises OSError.

    In a `shared` directory that its group can read, the group can read the file too.
    """
    folder = path.parent.stat()
    if shared and folder.st_mode & stat.S_IRGRP:
        write_atomically(path, data, 0o640, group=folder.st_gid)
    else:
        write_atomically(path, data, 0o600)


@contextmanager
def lock_file(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait for the file's lock and hold it, for the length of a `with` block; raises OSError.

    The lock file is in the same directory. It is never removed: otherwise two processes could each hold a
    lock. A link in a `shared` directory counts as read-only (EROFS): what made it would undo a change.
    """
    if shared and path.is_symlink():
        raise OSError(errno.EROFS, "a symbolic link, so the file is managed elsewhere", str(path))
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


def check_file(path: Path, status: os.stat_result, max_bytes: int, *, shared: bool = False) -> None:
    """Raise ValueError unless the open file is one that the module's rules accept; see above.

    Also if it is larger than `max_bytes`. The message is a predicate, to follow the file's name. Raises
    OSError if the `shared` directory cannot be checked.
    """
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    if shared:
        _check_shared(status, path.parent)
    elif status.st_mode & 0o077:
        raise ValueError("users other than its owner can read or write it; run chmod 600 on it")
    if status.st_size > max_bytes:
        raise ValueError(f"larger than {max_bytes} bytes")


def _check_shared(status: os.stat_result, directory: Path) -> None:
    folder = directory.stat()
    if status.st_mode & 0o027:
        raise ValueError(
            "users other than its owner and group can read it, or users other than its owner can write it;"
            " run chmod 640 on it, or set defaultMode: 0440 in Kubernetes"
        )
    if status.st_uid not in {0, os.geteuid(), folder.st_uid}:
        raise ValueError("belongs neither to root, nor to the service's user, nor to the directory's owner")
    # With the sticky bit, only its owner can replace a file. Kubernetes mounts secrets in this way (3777).
    is_writable = folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX
    if is_writable and not _is_read_only(directory):
        raise ValueError("other users can replace it in its directory; run chmod go-w on the directory")


def _is_read_only(directory: Path) -> bool:
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


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
