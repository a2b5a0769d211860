"""What stands at the root right now: enough to tell jobs that were removed from storage that is away.

Names alone are asked for: where a listing does not tell types, asking for them waits for the slowest job.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from jobsvc.storage.files.file_version import is_stable
from jobsvc.storage.layout import is_job_id
from jobsvc.storage.threads.gil_yield import chunks_yielding_gil

NAMES_PER_CHUNK: Final = 10_000
"""Names between two rests, and those that are put in order: ten milliseconds."""


class RootStat(NamedTuple):
    """One look at the root."""

    device: int
    inode: int
    may_have_jobs: bool
    """Whether at least one name in it can be a job's."""


class RootScan(NamedTuple):
    """The names beneath the root that can be jobs."""

    ids: list[str]
    ignored: int
    """How many names can't be jobs."""
    inodes: Sequence[int]
    """The inode number of each of the ids, as the directory has it."""


class RootVersion(NamedTuple):
    """What stat(2) says of the root that changes whenever a name in it comes or goes."""

    device: int
    inode: int
    mtime_ns: int
    ctime_ns: int
    links: int
    size: int

    def is_stable(self, now_ns: int) -> bool:
        """Return whether any change after `now_ns`, in nanoseconds since the epoch, makes it another version.

        Timestamps may be coarse: a change within the same tick leaves them as they are, as git has it of
        files that are "racily clean".
        """
        return is_stable(self.mtime_ns, self.ctime_ns, now_ns)


class RootListing(NamedTuple):
    """All names in the root."""

    inodes: dict[str, int]
    """The inode number of each name that can be a job's, as the directory has it."""
    ignored: int
    """How many names can't be jobs."""
    version: RootVersion
    """The root just before it was listed."""
    is_stable: bool
    """Whether a root of the same version has the same names."""


def root_version(root: Path) -> RootVersion:
    """Ask for the version of the root; OSError."""
    status = os.stat(root)  # noqa: PTH116 - tests replace `os` here
    return RootVersion(
        status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink, status.st_size
    )


def list_root(root: Path) -> RootListing:
    """List the names in the root with their inode numbers, without asking for anything else; OSError."""
    version, now_ns = root_version(root), time.time_ns()
    inodes: dict[str, int] = {}
    count = 0
    with os.scandir(root) as entries:
        for part in chunks_yielding_gil(entries, NAMES_PER_CHUNK):
            count += len(part)
            inodes.update((entry.name, entry.inode()) for entry in part if is_job_id(entry.name))
    return RootListing(inodes, count - len(inodes), version, version.is_stable(now_ns))


def stat_root(root: Path) -> RootStat:
    """Look at the root; OSError where it can't be. Ends at the first name that can be a job's."""
    status = root.stat()
    with os.scandir(root) as entries:
        jobs = any(is_job_id(entry.name) for entry in entries)
    return RootStat(status.st_dev, status.st_ino, jobs)


def list_job_ids(root: Path) -> RootScan:
    """List the names that can be jobs, whatever they name, and count the others; OSError.

    So many at a time are in the order of their inodes: what was made together is read, and kept, together.
    """
    ids, inodes, count = [], array("Q"), 0
    with os.scandir(root) as entries:
        for part in chunks_yielding_gil(entries, NAMES_PER_CHUNK):
            count += len(part)
            jobs = [entry for entry in sorted(part, key=os.DirEntry.inode) if is_job_id(entry.name)]
            ids += [entry.name for entry in jobs]
            inodes.extend(entry.inode() for entry in jobs)
    return RootScan(ids, count - len(ids), inodes)
