"""List the root, to tell removed jobs from unavailable storage. Blocking.

Only names and inode numbers are read, except by `find_job_directories`: where a listing has no types, reading
them waits for the slowest job.
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
"""Names per chunk, between two pauses; sorting is per chunk too. A chunk takes ten milliseconds."""


class RootStat(NamedTuple):
    """The root as stat_root found it."""

    device: int
    inode: int
    may_have_jobs: bool
    """Whether at least one name in the root can be a job id."""


class RootScan(NamedTuple):
    """The names in the root that can be job ids."""

    ids: list[str]
    ignored: int
    """Number of names that cannot be job ids."""
    inodes: Sequence[int]
    """The inode number of each id, from the directory entry."""


class JobDirectories(NamedTuple):
    """The job directories in the root."""

    ids: list[str]
    ignored: int
    """Number of names that are not job directories."""


class RootVersion(NamedTuple):
    """The fields of the root's stat(2) that change whenever a name is added or removed."""

    device: int
    inode: int
    mtime_ns: int
    ctime_ns: int
    links: int
    size: int

    def is_stable(self, now_ns: int) -> bool:
        """Return whether any change after `now_ns` (nanoseconds since the epoch) gives another version.

        Timestamps may be coarse: a second change within the same step does not alter them. git calls such
        files "racily clean".
        """
        return is_stable(self.mtime_ns, self.ctime_ns, now_ns)


class RootListing(NamedTuple):
    """All names in the root that can be job ids."""

    inodes: dict[str, int]
    """The inode number of each name that can be a job id, from the directory entry."""
    ignored: int
    """Number of names that cannot be job ids."""
    version: RootVersion
    """The version of the root just before it was listed."""
    is_stable: bool
    """Whether an equal version later proves that the names are the same."""


def root_version(root: Path) -> RootVersion:
    """Return the version of the root; raises OSError."""
    status = os.stat(root)  # noqa: PTH116 - tests replace `os` here
    return RootVersion(
        status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink, status.st_size
    )


def list_root(root: Path) -> RootListing:
    """List the names in the root with their inode numbers, without a stat per name; raises OSError."""
    version, now_ns = root_version(root), time.time_ns()
    inodes: dict[str, int] = {}
    count = 0
    with os.scandir(root) as entries:
        for part in chunks_yielding_gil(entries, NAMES_PER_CHUNK):
            count += len(part)
            inodes.update((entry.name, entry.inode()) for entry in part if is_job_id(entry.name))
    return RootListing(inodes, count - len(inodes), version, version.is_stable(now_ns))


def stat_root(root: Path) -> RootStat:
    """Return device and inode of the root, and whether it may have jobs; raises OSError.

    Stops at the first name that can be a job id.
    """
    status = root.stat()
    with os.scandir(root) as entries:
        jobs = any(is_job_id(entry.name) for entry in entries)
    return RootStat(status.st_dev, status.st_ino, jobs)


def list_job_ids(root: Path) -> RootScan:
    """List the names in the root that can be job ids, of any file type, and count the others; raises OSError.

    Each chunk of NAMES_PER_CHUNK names is sorted by inode: jobs created together are then read and stored
    together.
    """
    ids, inodes, count = [], array("Q"), 0
    with os.scandir(root) as entries:
        for part in chunks_yielding_gil(entries, NAMES_PER_CHUNK):
            count += len(part)
            jobs = [entry for entry in sorted(part, key=os.DirEntry.inode) if is_job_id(entry.name)]
            ids += [entry.name for entry in jobs]
            inodes.extend(entry.inode() for entry in jobs)
    return RootScan(ids, count - len(ids), inodes)


def find_job_directories(root: Path) -> JobDirectories:
    """List the job directories in the root, by name and file type; raises OSError."""
    ids, ignored = [], 0
    with os.scandir(root) as entries:
        for entry in entries:
            if is_job_id(entry.name) and entry.is_dir(follow_symlinks=False):
                ids.append(entry.name)
            else:
                ignored += 1
    return JobDirectories(ids, ignored)
