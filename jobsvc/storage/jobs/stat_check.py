"""Check with stat(2) whether a job is unchanged: cheaper than reading it, and causes no inotify events.

Correct on local file systems only: elsewhere stat may be seconds old, and only opening asks the server.
Blocking.
"""

from __future__ import annotations

import os
import stat

from jobsvc.domain.job import Status
from jobsvc.domain.outputs import OutputKind, sequence_pattern
from jobsvc.storage.files.client_version import client_version
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.output_states import OutputState
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
    paths = job.output_paths
    for path in paths:
        if path.startswith("/"):
            return False
    states = [_state(root, job_id, path) for path in paths]
    return states == known.states


def _state(root: int, job_id: str, path: str) -> OutputState | None:
    """Return what an output is, as OutputFinder does; None if there is none. Raises OSError."""
    names = components(path)
    if names is None:
        return None
    folder = job_id
    try:
        for name in names[:-1]:
            folder = f"{folder}/{name}"
            if not stat.S_ISDIR(os.stat(folder, dir_fd=root, follow_symlinks=False).st_mode):
                return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _state_in(root, folder, names[-1], must_be_directory=path.endswith("/"))


def _state_in(root: int, folder: str, name: str, *, must_be_directory: bool) -> OutputState | None:
    path = f"{folder}/{name}"
    try:
        status = os.stat(path, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        status = None
    if status is not None and stat.S_ISREG(status.st_mode):
        return None if must_be_directory else _readable(root, path, OutputKind.FILE, status)
    if not must_be_directory and sequence_pattern(name) is not None:
        parent = os.stat(folder, dir_fd=root, follow_symlinks=False)
        return _readable(root, folder, OutputKind.SEQUENCE, parent)
    if status is not None and stat.S_ISDIR(status.st_mode):
        return _readable(root, path, OutputKind.DIRECTORY, status)
    return None


def _readable(root: int, path: str, kind: OutputKind, status: os.stat_result) -> OutputState | None:
    """Return the state of a path; None if it cannot be opened for reading."""
    return OutputState(kind, client_version(status)) if os.access(path, os.R_OK, dir_fd=root) else None
