"""Outputs that were opened a moment ago, open still: taken again while nothing on the way to them changed.

To open a file is told to every watch upon its folder, and costs more than to send a small range of it. What
is kept had been unchanged for a while when it was opened, so that any change shows in a ctime (inode(7)).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from jobsvc.storage.files.file_version import TIMESTAMP_GRANULARITY_NS
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.nonblocking.openat2 import path_has_version, try_fstat

MAX_CACHED_FILES: Final = 64
"""Files kept at once."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on the way to a file: who renames it, or changes what is in it, changes its ctime."""

    fd: int
    ctime_ns: int


class RecordCheck(NamedTuple):
    """The record that named an output: where it is, and as which version of it was read."""

    path: bytes
    version: JobSnapshot
    components: tuple[int, int, int, int]
    """What the version's identity is made of."""
    device: int

    @classmethod
    def of(cls, path: bytes, known: JobSnapshot, device: int) -> Self:
        """Take a record that lies on a device."""
        return cls(path, known, known.record_version.parts(), device)

    def exists(self) -> bool:
        """Whether its path leads to this version still, as far as that is in memory."""
        return path_has_version(self.path, self.components, self.device)


@dataclass(frozen=True, slots=True)
class _CachedFile:
    record: RecordCheck
    file: OpenFile
    ctime_ns: int
    folders: tuple[Folder, ...]

    def unchanged(self) -> bool:
        """Whether its path still leads to this file, and the file still is what it was."""
        if not self.record.exists():
            return False
        try:
            status = os.fstat(self.file.fd)
            if status.st_ctime_ns != self.ctime_ns or not status.st_nlink:
                return False
            for folder in self.folders:
                if os.fstat(folder.fd).st_ctime_ns != folder.ctime_ns:
                    return False
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give all descriptors back; waits for storage where it was the last name of a large file."""
        try:
            os.close(self.file.fd)
        finally:  # each is closed, also where another fails
            for folder in self.folders:
                with suppress(OSError):
                    os.close(folder.fd)


class DescriptorCache:
    """At most MOST files by their jobs' ids, for its owner to let go soon; belongs to one thread."""

    def __init__(self, dispose: Callable[[object], None]) -> None:
        """`dispose` closes what it is given, where that may wait."""
        self._close_later = dispose
        self._cached: dict[str, _CachedFile] = {}
        self._older: set[str] = set()

    def get(self, known: JobSnapshot) -> OpenFile | None:
        """Open a job's output again, if it is kept and this reading named it. Never raises."""
        job_id = known.job.id
        kept = self._cached.get(job_id)
        if kept is None:
            return None
        if (kept.record.version is known or kept.record.version == known) and kept.unchanged():
            return _dup(kept.file)
        self._drop(job_id)
        return None

    def put(self, record: RecordCheck, file: OpenFile, folders: tuple[Folder, ...]) -> None:
        """Keep a file beside its owner, and take over the folders, which were opened before it.

        Never raises: where no more files may be open, it is not kept.
        """
        job_id = record.version.job.id
        self._drop(job_id)
        now, ctime = time.time_ns(), file.version.ctime_ns
        moments = (ctime, *(each.ctime_ns for each in folders))
        own = None if any(now - moment <= TIMESTAMP_GRANULARITY_NS for moment in moments) else _dup(file)
        if own is None:
            for folder in folders:
                os.close(folder.fd)
            return
        if len(self._cached) >= MAX_CACHED_FILES:
            self._drop(next(iter(self._cached)))
        self._cached[job_id] = _CachedFile(record, own, ctime, folders)

    def evict_idle(self) -> None:
        """Close what was kept when this was called last: storage that is in use can't be unmounted."""
        for job_id in self._older & self._cached.keys():
            self._drop(job_id)
        self._older = set(self._cached)

    def close(self) -> None:
        """Close all."""
        for job_id in list(self._cached):
            self._drop(job_id)

    def _drop(self, job_id: str) -> None:
        kept = self._cached.pop(job_id, None)
        if kept is not None:
            self._older.discard(job_id)
            self._close_later(kept)


def folder_of(fd: int) -> Folder | None:
    """Take an open folder over; None, and it is closed, where it is none."""
    status = try_fstat(fd)
    if status is not None and stat.S_ISDIR(status.st_mode):
        return Folder(fd, status.st_ctime_ns)
    os.close(fd)
    return None


def _dup(file: OpenFile) -> OpenFile | None:
    """Open an open file once more; None where no more files may be open."""
    try:
        return OpenFile(os.dup(file.fd), file.version, file.name, file.link_count)
    except OSError:
        return None
