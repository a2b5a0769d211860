"""Open the outputs of one job, for listing and for archives. Blocking."""

from __future__ import annotations

from typing import Protocol

from jobsvc.domain.job import Job
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.reader import JobsRoot


class OutputSource(Protocol):
    """Opens the outputs of one job, by the rules of `storage/jobs/reader.py`.

    Each method that opens raises PathNotFound, or OSError for a storage fault.
    """

    def open_file(self, path: str) -> OpenFile:
        """Open the regular file at a path of the record."""

    def open_directory(self, path: str) -> int:
        """Open the directory at a path of the record; returns a descriptor, with O_PATH or for reading."""

    def open_parent(self, path: str) -> int:
        """Open the directory that contains a path of the record."""

    def is_closed(self, path: str) -> bool:
        """Return whether a directory below a path of the record must not be entered."""


class JobOutputs:
    """The outputs of a job in its directory, or below an output root."""

    def __init__(self, root: JobsRoot, job: Job) -> None:
        self._root = root
        self._job = job

    def open_file(self, path: str) -> OpenFile:
        """Open the regular file at a path of the record."""
        return self._root.open_path(self._job, path)

    def open_directory(self, path: str) -> int:
        """Open the directory at a path of the record; returns a descriptor with O_PATH."""
        return self._root.open_output_directory(self._job, path)

    def open_parent(self, path: str) -> int:
        """Open the directory that contains a path of the record; returns a descriptor with O_PATH."""
        return self._root.open_frames_directory(self._job, path)

    def is_closed(self, path: str) -> bool:
        """Return whether a directory is an output root of other owners only."""
        return self._root.is_closed(self._job, path)
