"""What stands at the root right now: enough to tell jobs that were removed from storage that is away.

Names alone are asked for: where a listing does not tell types, asking for them waits for the slowest job.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from jobsvc.storage.layout import is_job_id
from jobsvc.storage.reader import Scan
from jobsvc.storage.rests import in_parts

LISTED: Final = 10_000
"""Names between two rests, and those that are put in order: ten milliseconds."""


class Place(NamedTuple):
    """One look at the root."""

    device: int
    inode: int
    jobs: bool
    """Whether at least one name in it can be a job's."""


def place_of(root: Path) -> Place:
    """Look at the root; OSError where it can't be. Ends at the first name that can be a job's."""
    status = root.stat()
    with os.scandir(root) as entries:
        jobs = any(is_job_id(entry.name) for entry in entries)
    return Place(status.st_dev, status.st_ino, jobs)


def names_in(root: Path) -> Scan:
    """List the names that can be jobs, whatever they name, and count the others; OSError.

    So many at a time are in the order of their inodes: what was made together is read, and kept, together.
    """
    ids, count = [], 0
    with os.scandir(root) as entries:
        for part in in_parts(entries, LISTED):
            count += len(part)
            ids += [entry.name for entry in sorted(part, key=os.DirEntry.inode) if is_job_id(entry.name)]
    return Scan(ids, count - len(ids))
