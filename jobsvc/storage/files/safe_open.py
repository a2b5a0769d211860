"""Open files below a directory, component by component, without following symbolic links. Blocking.

Each component is opened relative to its parent's descriptor with O_NOFOLLOW; the file type is checked on the
open descriptor. A path that does not exist or is not a regular file raises PathNotFound, a storage fault
OSError. All files that are served are opened here or in `nonblocking`, where openat2(2) applies the same
rules.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias, TypeVar

from jobsvc.storage.files.client_version import client_version
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.filesystem.mounts import may_cache_names

T = TypeVar("T")

Opened: TypeAlias = tuple[int, os.stat_result, str]
"""An open regular file: its descriptor, its fstat result, and the last component of its path."""

DIRECTORY_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
PATH_FLAGS: Final = DIRECTORY_FLAGS | os.O_NOFOLLOW
# O_NONBLOCK: opening a FIFO must not block. O_NOCTTY: a terminal must not become the controlling terminal.
FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NOT_FOUND_ERRNOS: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}
)
"""Errors of open(2) that mean that the path does not lead to a file."""
_STALE_TRIES: Final = 3
_STALE_PAUSE_S: Final = 0.02


class PathNotFound(Exception):
    """The path does not exist or is not a regular file; for a job: no directory, or no status.json in it."""


class RecordMissing(PathNotFound):
    """The job directory exists, but contains no regular file status.json."""


class OpenFile(NamedTuple):
    """A regular file open for reading, with its state at the time of opening."""

    fd: int
    version: FileVersion
    name: str
    """The last component of its path."""
    link_count: int
    """Number of hard links."""
    fingerprint: bytes | None = None
    """Fingerprint of the content of a file that may grow; None for a file that must not change."""

    def close(self) -> None:
        """Close the descriptor; call only once."""
        os.close(self.fd)


def describe_open_file(fd: int, status: os.stat_result, name: str) -> OpenFile:
    """Return an OpenFile that takes ownership of the descriptor."""
    return OpenFile(fd, client_version(status), name, status.st_nlink)


def open_regular(folder: int, names: tuple[str, ...]) -> Opened:
    """Open the regular file at path `names` below the directory `folder`.

    Raises PathNotFound if there is none, OSError for a storage fault.
    """
    fd, status = call_in_parent(folder, names, open_file)
    return fd, status, names[-1]


def call_in_parent(folder: int, names: tuple[str, ...], call: Callable[[int, str], T]) -> T:
    """Call `call` with the directory of the path `names` below `folder`, and the path's last component.

    Raises PathNotFound if a directory on the path is missing; OSError; and what `call` raises.
    """
    passed: list[int] = []
    try:
        for name in names[:-1]:
            folder = open_beneath(folder, name, PATH_FLAGS)
            passed.append(folder)
        return call(folder, names[-1])
    finally:
        for fd in passed:
            os.close(fd)


def open_directory(folder: int, names: tuple[str, ...]) -> int:
    """Open the directory at path `names` below `folder` with O_PATH; no names give a second descriptor of it.

    Raises PathNotFound if there is none, OSError for a storage fault.
    """
    opened = os.open(".", PATH_FLAGS, dir_fd=folder)
    for name in names:
        try:
            below = open_beneath(opened, name, PATH_FLAGS)
        finally:
            os.close(opened)
        opened = below
    return opened


def open_file(folder: int, name: str) -> tuple[int, os.stat_result]:
    """Open a regular file in a directory; raises PathNotFound if it is missing or anything else."""
    fd, status = open_file_or_directory(folder, name)
    if stat.S_ISREG(status.st_mode):
        return fd, status
    os.close(fd)
    raise PathNotFound


def open_file_or_directory(folder: int, name: str) -> tuple[int, os.stat_result]:
    """Open a name in a directory for reading; raises PathNotFound if it is neither file nor directory."""
    fd = open_beneath(folder, name, FILE_FLAGS)
    try:
        status = os.fstat(fd)
    except BaseException:
        os.close(fd)
        raise
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return fd, status
    os.close(fd)
    raise PathNotFound


def open_beneath(folder: int, name: str, flags: int) -> int:
    """Open a name in a directory; raises PathNotFound, or OSError: ESTALE if its absence was only cached."""
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as failed:
        if failed.errno == errno.ENOENT and is_listed(folder, name):
            raise OSError(errno.ESTALE, "listed, but not found", name) from failed
        if failed.errno in NOT_FOUND_ERRNOS:
            raise PathNotFound from failed
        raise


def is_listed(folder: int, name: str) -> bool:
    """Return whether a name that open(2) did not find is in its directory; False on a local file system.

    Network and FUSE file systems cache the absence of a name for up to a minute. Listing the directory asks
    the server, and the next lookup finds the name. `folder` is a descriptor; O_PATH is enough. Raises
    OSError.
    """
    if not may_cache_names(os.fstat(folder).st_dev):
        return False
    try:
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        return name in os.listdir(readable)  # noqa: PTH208 - of a descriptor
    finally:
        os.close(readable)


def retry_stale(call: Callable[[], T]) -> T:
    """Run `call`, up to three times while it raises ESTALE, 20 ms apart.

    ESTALE: a file was replaced between lookup and open (NFS), or its absence was cached.
    """
    for _ in range(_STALE_TRIES - 1):
        try:
            return call()
        except OSError as failed:
            if failed.errno != errno.ESTALE:
                raise
            time.sleep(_STALE_PAUSE_S)
    return call()
