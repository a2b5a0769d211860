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

from jobsvc.storage.files.file_version import SETTLED_NS
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.snapshot import Reading
from jobsvc.storage.nonblocking.openat2 import leads_to, told

MOST: Final = 64
"""Files kept at once."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on the way to a file: who renames it, or changes what is in it, changes its ctime."""

    fd: int
    ctime_ns: int


class Record(NamedTuple):
    """The record that named an output: where it is, and as which version of it was read."""

    path: bytes
    known: Reading
    parts: tuple[int, int, int, int]
    """What the version's identity is made of."""
    device: int

    @classmethod
    def of(cls, path: bytes, known: Reading, device: int) -> Self:
        """Take a record that lies on a device."""
        return cls(path, known, known.identity.parts(), device)

    def there(self) -> bool:
        """Whether its path leads to this version still, as far as that is in memory."""
        return leads_to(self.path, self.parts, self.device)


@dataclass(frozen=True, slots=True)
class _Kept:
    record: Record
    file: OpenFile
    ctime_ns: int
    folders: tuple[Folder, ...]

    def unchanged(self) -> bool:
        """Whether its path still leads to this file, and the file still is what it was."""
        if not self.record.there():
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


class KeptOutputs:
    """At most MOST files by their jobs' ids, for its owner to let go soon; belongs to one thread."""

    def __init__(self, dispose: Callable[[object], None]) -> None:
        """`dispose` closes what it is given, where that may wait."""
        self._dispose = dispose
        self._kept: dict[str, _Kept] = {}
        self._older: set[str] = set()

    def take(self, known: Reading) -> OpenFile | None:
        """Open a job's output again, if it is kept and this reading named it. Never raises."""
        job_id = known.job.id
        kept = self._kept.get(job_id)
        if kept is None:
            return None
        if (kept.record.known is known or kept.record.known == known) and kept.unchanged():
            return _again(kept.file)
        self._drop(job_id)
        return None

    def keep(self, record: Record, file: OpenFile, folders: tuple[Folder, ...]) -> None:
        """Keep a file beside its owner, and take over the folders, which were opened before it.

        Never raises: where no more files may be open, it is not kept.
        """
        job_id = record.known.job.id
        self._drop(job_id)
        now, ctime = time.time_ns(), file.identity.ctime_ns
        moments = (ctime, *(each.ctime_ns for each in folders))
        own = None if any(now - moment <= SETTLED_NS for moment in moments) else _again(file)
        if own is None:
            for folder in folders:
                os.close(folder.fd)
            return
        if len(self._kept) >= MOST:
            self._drop(next(iter(self._kept)))
        self._kept[job_id] = _Kept(record, own, ctime, folders)

    def let_go(self) -> None:
        """Close what was kept when this was called last: storage that is in use can't be unmounted."""
        for job_id in self._older & self._kept.keys():
            self._drop(job_id)
        self._older = set(self._kept)

    def close(self) -> None:
        """Close all."""
        for job_id in list(self._kept):
            self._drop(job_id)

    def _drop(self, job_id: str) -> None:
        kept = self._kept.pop(job_id, None)
        if kept is not None:
            self._older.discard(job_id)
            self._dispose(kept)


def folder_of(fd: int) -> Folder | None:
    """Take an open folder over; None, and it is closed, where it is none."""
    status = told(fd)
    if status is not None and stat.S_ISDIR(status.st_mode):
        return Folder(fd, status.st_ctime_ns)
    os.close(fd)
    return None


def _again(file: OpenFile) -> OpenFile | None:
    """Open an open file once more; None where no more files may be open."""
    try:
        return OpenFile(os.dup(file.fd), file.identity, file.name, file.links)
    except OSError:
        return None
