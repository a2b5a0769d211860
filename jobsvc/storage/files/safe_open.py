"""From names to a descriptor: the one way, but for `cached`, which has the kernel walk by the same rules.

Each component is opened relative to the one before and never through a symbolic link, and what was opened is
asked what it is. Absent is what leads nowhere or to anything but a regular file; a fault of storage is an
OSError.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias, TypeVar

from jobsvc.storage.files.client_version import version_of
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.filesystem.mounts import may_cache_names

T = TypeVar("T")

Opened: TypeAlias = tuple[int, os.stat_result, str]
"""A regular file that is open: its descriptor, what fstat said, and the last component of its path."""

DIRECTORY_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
PATH_FLAGS: Final = DIRECTORY_FLAGS | os.O_NOFOLLOW
# O_NONBLOCK and O_NOCTTY: a FIFO or a terminal put in a file's place must neither hang us nor become ours.
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NOT_FOUND_ERRNOS: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}
)
"""What the system says of names that lead nowhere."""
_STALE_TRIES: Final = 3
_STALE_PAUSE_S: Final = 0.02


class PathNotFound(Exception):
    """There is no such job: no directory of this name, or no status.json in it."""


class RecordMissing(PathNotFound):
    """The job's directory is there, but no regular file status.json is in it."""


class OpenFile(NamedTuple):
    """A regular file, open for reading, as it was at the moment of opening."""

    fd: int
    version: FileVersion
    name: str
    """The last component of its path."""
    link_count: int
    """How many names it had."""
    fingerprint: bytes | None = None
    """Of a file that may grow: what it held, in brief. Of any other None: no change of it is allowed."""

    def close(self) -> None:
        """Give the descriptor back; once only."""
        os.close(self.fd)


def describe_open_file(fd: int, status: os.stat_result, name: str) -> OpenFile:
    """Take an open descriptor over."""
    return OpenFile(fd, version_of(status), name, status.st_nlink)


def open_regular(folder: int, names: tuple[str, ...]) -> Opened:
    """Open the regular file that `names` lead to from `folder`; Absent where anything else is found."""
    passed: list[int] = []
    try:
        for name in names[:-1]:
            folder = _open_beneath(folder, name, PATH_FLAGS)
            passed.append(folder)
        fd, status = open_file(folder, names[-1])
        return fd, status, names[-1]
    finally:
        for fd in passed:
            os.close(fd)


def open_file(folder: int, name: str) -> tuple[int, os.stat_result]:
    """Open a regular file of a folder; what turns out to be something else is closed again, and Absent."""
    fd = _open_beneath(folder, name, _FILE_FLAGS)
    try:
        status = os.fstat(fd)
    except BaseException:
        os.close(fd)
        raise
    if stat.S_ISREG(status.st_mode):
        return fd, status
    os.close(fd)
    raise PathNotFound


def _open_beneath(folder: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as failed:
        if failed.errno == errno.ENOENT and is_listed(folder, name):
            raise OSError(errno.ESTALE, "listed, but not found", name) from failed
        if failed.errno in NOT_FOUND_ERRNOS:
            raise PathNotFound from failed
        raise


def is_listed(folder: int, name: str) -> bool:
    """Return whether a name that was not found is in its folder after all; False on a local file system.

    Network and FUSE file systems cache the absence of a name, for up to a minute; to list its directory asks
    the server, and has the name found the next time. `folder` is a descriptor, which need not be readable.
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
    """Call again on ESTALE: a file was replaced between lookup and open (NFS), or its absence was cached."""
    for _ in range(_STALE_TRIES - 1):
        try:
            return call()
        except OSError as failed:
            if failed.errno != errno.ESTALE:
                raise
            time.sleep(_STALE_PAUSE_S)
    return call()
