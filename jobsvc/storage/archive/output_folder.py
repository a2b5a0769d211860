"""Read one directory of an output: names, types and versions of its entries. Blocking.

Nothing follows symbolic links. On network file systems an absent entry is believed only if a second listing
does not contain it either.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from jobsvc.storage.files.client_version import packed_client_version
from jobsvc.storage.files.safe_open import NOT_FOUND_ERRNOS, PATH_FLAGS, open_beneath, retry_stale
from jobsvc.storage.filesystem.mounts import may_cache_names

_READABLE: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ_BY_ALL: Final = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


class NotAFile(Exception):
    """The entry is no regular file, or it cannot be read."""


class OutputFolder:
    """A directory that is being listed."""

    def __init__(self, fd: int) -> None:
        """Open the directory for reading and close `fd`, which may be an O_PATH descriptor.

        Raises OSError; PermissionError if it must not be read.
        """
        try:
            self.fd = os.open(".", _READABLE, dir_fd=fd)
        finally:
            os.close(fd)
        self._listed_again: frozenset[str] | None = None

    def close(self) -> None:
        """Close the descriptor; call only once."""
        os.close(self.fd)

    def entries(self) -> Iterator[os.DirEntry[str]]:
        """Yield the entries in the order of the file system; raises OSError."""
        with os.scandir(self.fd) as entries:
            yield from entries

    def open_directory(self, name: str) -> OutputFolder:
        """Open a directory in this one; raises PathNotFound if it is gone or no directory, or OSError."""
        return OutputFolder(retry_stale(lambda: open_beneath(self.fd, name, PATH_FLAGS)))

    def has_file(self, name: str) -> bool:
        """Return whether there is a regular file with this name; raises OSError for a storage fault."""
        try:
            status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except PermissionError:
            return False
        except OSError as failed:
            if failed.errno not in NOT_FOUND_ERRNOS:
                raise
            return False
        return stat.S_ISREG(status.st_mode)

    def version_of(self, name: str) -> bytes | None:
        """Return the packed version of a regular file; None if it was removed meanwhile.

        Raises NotAFile, or OSError for a storage fault.
        """
        try:
            status = self._stat(name)
        except PermissionError as denied:
            raise NotAFile from denied
        if status is None:
            return None
        if not stat.S_ISREG(status.st_mode) or not self._is_readable(name, status.st_mode):
            raise NotAFile
        return packed_client_version(status)

    def _is_readable(self, name: str, mode: int) -> bool:
        """Return whether this process may read the file; asks the file system if not everybody may."""
        return mode & _READ_BY_ALL == _READ_BY_ALL or os.access(
            name, os.R_OK, dir_fd=self.fd, effective_ids=True, follow_symlinks=False
        )

    def _stat(self, name: str) -> os.stat_result | None:
        def stat_once() -> os.stat_result:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

        try:
            return stat_once()
        except FileNotFoundError:
            return retry_stale(lambda: self._stat_again(name, stat_once))
        except OSError as failed:
            if failed.errno != errno.ESTALE:
                raise
            return retry_stale(stat_once)

    def _stat_again(self, name: str, stat_once: Callable[[], os.stat_result]) -> os.stat_result | None:
        """Stat a listed entry that was not found; None if it is removed, ESTALE if it is still listed.

        The directory is listed once for all such entries: it can have 100,000.
        """
        if self._listed_again is None:
            cached = may_cache_names(os.fstat(self.fd).st_dev)
            self._listed_again = frozenset(os.listdir(self.fd) if cached else ())  # noqa: PTH208 - of a descriptor
        if name not in self._listed_again:
            return None
        try:
            return stat_once()
        except FileNotFoundError as failed:
            raise OSError(errno.ESTALE, "listed, but not found", name) from failed


def is_usable(name: str) -> bool:
    """Return whether an entry's name can be that of a listed file.

    It has to be UTF-8, and must not contain a backslash: Windows takes it for a separator, so unpacking an
    archive could write elsewhere.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\\" not in name
