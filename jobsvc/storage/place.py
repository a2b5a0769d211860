"""What stands at the root right now: enough to tell jobs that were removed from storage that is away.

Names alone are asked for: where a listing does not tell types, asking for them waits for the slowest job.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from jobsvc.storage.layout import is_job_id
from jobsvc.storage.reader import Scan
from jobsvc.storage.rests import in_parts


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
    """List the names that can be jobs, whatever they name, and count the others; OSError."""
    names = os.listdir(root)  # noqa: PTH208 - a Path for each of 100,000 names costs half a second
    ids = [name for part in in_parts(names) for name in part if is_job_id(name)]
    return Scan(ids, len(names) - len(ids))
