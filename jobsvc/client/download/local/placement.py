"""Give a complete file its name, and decide what happens if the name is taken."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Final

from jobsvc.client.download.local.part_file import PartFile, belongs_to, part_paths
from jobsvc.client.download.source import Source
from jobsvc.client.errors import DownloadError, FileExists
from jobsvc.client.models import Exists

MTIME_TOLERANCE_S: Final = 2.0
"""Resolution of times on FAT."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_HARD_LINKS: Final = frozenset(
    {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.EACCES, errno.EINVAL}
)


def already_exists(target: Path) -> FileExists:
    """Return the error for a target that exists."""
    return FileExists(
        f"{target} exists already: skip it, overwrite it, rename the new file, or choose another place."
    )


def free_name(target: Path, source: Source, taken: Container[Path]) -> Path:
    """Return `target`, or else the first of `name-1.ext`, `name-2.ext`, ... that is free.

    The part file of another download takes a name, too; one of the same file does not.
    """
    return next(
        candidate
        for candidate in _candidates(target)
        if candidate not in taken
        and not os.path.lexists(candidate)
        and belongs_to(part_paths(candidate), source)
    )


def looks_identical(target: Path, source: Source) -> bool:
    """Return whether a regular file has the size and modification time of the source."""
    try:
        status = os.lstat(target)
    except OSError:
        return False
    if source.modified_at is None or not os.path.isfile(target) or os.path.islink(target):  # noqa: PTH113, PTH114
        return False
    difference = abs(status.st_mtime - source.modified_at.timestamp())
    return status.st_size == source.size and difference <= MTIME_TOLERANCE_S


def check_space(files: Iterable[tuple[Path, Path, int]]) -> None:
    """Raise DownloadError if the disks cannot hold what is missing of files: target, part file, size."""
    for directory, size in _needed(files):
        try:
            free = shutil.disk_usage(directory).free
        except OSError as exc:
            raise DownloadError(f"{directory} cannot be read: {exc.strerror}.") from exc
        if size > free:
            raise DownloadError(
                f"{_mebibytes(size)} are needed in {directory}, but only {_mebibytes(free)} are free."
            ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _needed(files: Iterable[tuple[Path, Path, int]]) -> Iterable[tuple[Path, int]]:
    """Return the bytes that are missing, for one directory of each disk. Raises DownloadError."""
    needed: dict[int, tuple[Path, int]] = {}
    for target, part, size in files:
        try:
            device = target.parent.stat().st_dev
        except OSError as exc:
            raise DownloadError(f"{target.parent} cannot be read: {exc.strerror}.") from exc
        _, total = needed.get(device, (target.parent, 0))
        needed[device] = target.parent, total + max(0, size - _allocated(part))
    return needed.values()


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def place(part: PartFile, target: Path, exists: Exists) -> Path:
    """Write the part file to disk and rename it to its target; return the target.

    Raises FileExists if it exists and may not be replaced, and DownloadError.
    """
    try:
        _set_modified(part)
        os.fsync(part.fileno())
        part.check_unchanged()
        part.close_before_replacing()
        placed = _rename(part.paths.part, target, exists)
        part.remove_record()
    except OSError as exc:
        raise DownloadError(f"{target} cannot be written: {exc.strerror}.") from exc
    part.close()
    return placed


def sync_directory(path: Path) -> None:
    """Write a directory's entries to disk, where that is possible."""
    if sys.platform != "win32":
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _rename(part: Path, target: Path, exists: Exists) -> Path:
    if exists == "overwrite":
        part.replace(target)
        return target
    for candidate in _candidates(target) if exists == "rename" else (target,):
        with suppress(FileExistsError):
            _rename_exclusively(part, candidate)
            return candidate
    raise already_exists(target)


if sys.platform == "win32":

    def _rename_exclusively(part: Path, target: Path) -> None:
        part.rename(target)  # raises FileExistsError on Windows

else:

    def _rename_exclusively(part: Path, target: Path) -> None:
        """Rename a file unless the target exists. Raises FileExistsError."""
        try:
            os.link(part, target)
        except FileExistsError:
            raise
        except OSError as exc:
            if exc.errno not in _NO_HARD_LINKS:
                raise
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            part.replace(target)
        else:
            part.unlink()


def _allocated(path: Path) -> int:
    """Return the bytes of a file that are on disk."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return min(status.st_size, getattr(status, "st_blocks", status.st_size) * 512)


def _set_modified(part: PartFile) -> None:
    modified = part.source.modified_at
    if modified is None:
        return
    mtime_ns = (modified - _EPOCH) // timedelta(microseconds=1) * 1000
    with suppress(OSError, OverflowError):  # the file system cannot represent it
        # Not by the path, which may be a link meanwhile.
        file = part.fileno() if os.utime in os.supports_fd else part.paths.part
        os.utime(file, ns=(time.time_ns(), mtime_ns))


def _candidates(target: Path) -> Iterator[Path]:
    yield target
    for number in count(1):
        yield target.with_name(f"{target.stem}-{number}{target.suffix}")
