"""Check with stat(2) whether a job is unchanged: cheaper than reading it, and causes no inotify events.

Correct on local file systems only: elsewhere stat may be seconds old, and only opening asks the server.
Blocking.
"""

from __future__ import annotations

import os
import stat

from jobsvc.domain.job import Status
from jobsvc.storage.files.client_version import client_version
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import STATUS_FILE, components


def is_unchanged(root: int, job_id: str, known: JobSnapshot) -> bool:
    """Return whether reading the job again would give `known`; also False if only reading it can tell.

    `root` is a descriptor of the root.
    """
    if not known.is_stable:
        return False
    try:
        return _same_record(root, job_id, known) and _same_output(root, job_id, known)
    except OSError:
        return False


def _same_record(root: int, job_id: str, known: JobSnapshot) -> bool:
    if not stat.S_ISDIR(os.stat(job_id, dir_fd=root, follow_symlinks=False).st_mode):
        return False
    record = os.stat(f"{job_id}/{STATUS_FILE}", dir_fd=root, follow_symlinks=False)
    return stat.S_ISREG(record.st_mode) and FileVersion.of(record) == known.record_version


def _same_output(root: int, job_id: str, known: JobSnapshot) -> bool:
    job = known.job
    if job.status is not Status.COMPLETED:
        return True
    path = job.output_path or ""
    names = components(path)
    if path.startswith("/"):
        return False
    return known.output_version == (_file(root, job_id, names) if names is not None else None)


def _file(root: int, job_id: str, names: tuple[str, ...]) -> FileVersion | None:
    """Return the version of a regular file that can be opened; None if there is none. Raises OSError."""
    path = job_id
    try:
        for name in names[:-1]:
            path = f"{path}/{name}"
            if not stat.S_ISDIR(os.stat(path, dir_fd=root, follow_symlinks=False).st_mode):
                return None
        path = f"{path}/{names[-1]}"
        status = os.stat(path, dir_fd=root, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.R_OK, dir_fd=root):
        return None
    return client_version(status)
