"""Read job directories without following symbolic links. Blocking: not for the event loop.

Each component below the job directory or output root is opened relative to a directory descriptor with
O_NOFOLLOW, and the job directory itself may not be a symbolic link. File types are checked on the open
descriptor. A missing file, an invalid record and a storage fault raise different exceptions. Nothing is
written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

import orjson

from jobsvc.domain.errors import LogMissing, OutputMissing
from jobsvc.domain.job import SYNONYMS, Job, Status
from jobsvc.domain.status_record import BadRecord
from jobsvc.storage.files.pread import fingerprint
from jobsvc.storage.files.safe_open import (
    DIRECTORY_FLAGS,
    NOT_FOUND_ERRNOS,
    PATH_FLAGS,
    OpenFile,
    PathNotFound,
    describe_open_file,
    open_directory,
    open_regular,
    retry_stale,
)
from jobsvc.storage.jobs.log_tail import last_lines
from jobsvc.storage.jobs.output_finder import NO_OUTPUTS, FoundOutputs, OutputFinder
from jobsvc.storage.jobs.output_roots import OutputRoots
from jobsvc.storage.jobs.record_reader import RecordReader
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import DEFAULT_LOG, OutputRoot, components, is_job_id
from jobsvc.storage.processes.record_process import RecordProcessClient

T = TypeVar("T", int, OpenFile)


class JobsRoot:
    """The root of all job directories, and the output roots that absolute paths may point into."""

    def __init__(
        self,
        path: Path,
        output_roots: Sequence[Path | OutputRoot] = (),
        aliases: Mapping[str, Status] = SYNONYMS,
        *,
        record_process: RecordProcessClient | None = None,
    ) -> None:
        """Set the roots; `record_process` decodes large records, which would hold the GIL too long here."""
        self.path = path
        self._prefix = f"{path}/"
        self._output_roots = OutputRoots(output_roots)
        self._finder = OutputFinder(self._output_roots)
        self._records = RecordReader(aliases, record_process)

    @property
    def output_roots(self) -> list[str]:
        """The normalized names of the output roots, the nearest first."""
        return self._output_roots.names

    def arguments(self) -> list[str]:
        """Return arguments to create the same object in another process: the aliases as JSON, then paths."""
        aliases = orjson.dumps(dict(self._records.aliases)).decode()
        return [aliases, str(self.path), *self._output_roots.arguments()]

    @classmethod
    def of_arguments(cls, aliases: str, path: str, *outputs: str) -> Self:
        """Create the object from the arguments of another."""
        known = {word: Status(status) for word, status in orjson.loads(aliases).items()}
        return cls(Path(path), list(map(OutputRoots.parse, outputs)), known)

    def has_name(self, job_id: str) -> bool:
        """Return whether the root contains this name, of any type; raises OSError for a storage fault."""
        try:
            os.stat(f"{self._prefix}{job_id}", follow_symlinks=False)  # noqa: PTH116 - tests replace `os` here
        except FileNotFoundError:
            return False
        return True

    def read(self, job_id: str, known: JobSnapshot | None = None) -> JobSnapshot:
        """Read one job's snapshot; the record is not read again if its file version is the one in `known`.

        Raises PathNotFound, BadRecord, or OSError for a storage fault.
        """
        snapshot, outputs = retry_stale(lambda: self._read_job(job_id, known))
        outputs.close()
        return snapshot

    def read_and_open(
        self, job_id: str, known: JobSnapshot | None = None
    ) -> tuple[JobSnapshot, OpenFile | None]:
        """Read one job's snapshot; return it with the main output, open, or None if that is not a file.

        Raises the same as `read`.
        """
        snapshot, outputs = retry_stale(lambda: self._read_job(job_id, known))
        return snapshot, None if outputs.main_file is None else describe_open_file(*outputs.main_file)

    def open_output(self, job: Job) -> OpenFile:
        """Open the file at outputPath; raises OutputMissing, or OSError for a storage fault."""
        try:
            return self.open_path(job, job.output_path or "")
        except PathNotFound as absent:
            raise OutputMissing from absent

    def open_path(self, job: Job, path: str, known: JobSnapshot | None = None) -> OpenFile:
        """Open the regular file at a path that the job's record names, or below one.

        The record is not decoded again if its file version is the one in `known`. Raises PathNotFound, also
        if the job directory now belongs to another owner's job; or OSError for a storage fault.
        """
        return retry_stale(lambda: self._open(job, path, _open_described, known))

    def open_output_directory(self, job: Job, path: str) -> int:
        """Open the directory at a path that the job's record names, or below one.

        Returns a descriptor with O_PATH, which the caller closes. Raises the same as `open_path`.
        """
        return retry_stale(lambda: self._open(job, path, open_directory))

    def open_frames_directory(self, job: Job, path: str) -> int:
        """Open the directory that contains the frames of the sequence at `path`.

        This is the job directory if the path has one component. Returns and raises the same as
        `open_output_directory`.
        """
        return retry_stale(lambda: self._open(job, path, _open_parent))

    def is_closed(self, job: Job, path: str) -> bool:
        """Return whether a directory below a path of the record is an output root of other owners only."""
        return self._output_roots.is_closed(job.owner, path)

    def open_log(self, job: Job) -> OpenFile:
        """Open the job's log, which may grow; raises LogMissing, or OSError for a storage fault.

        Also raises LogMissing if the job directory now belongs to another owner's job.
        """
        try:
            return retry_stale(lambda: self._open_log(job))
        except PathNotFound as absent:
            raise LogMissing from absent

    def log_folder_changed_at(self, job: Job) -> float | None:
        """Return the mtime of the directory that should contain the log, in seconds since the epoch.

        None if the job directory has no such directory, or if logPath is absolute. Raises OSError for a
        storage fault.
        """
        names = components(job.details.log_path or DEFAULT_LOG)
        if names is None or (job.details.log_path or "").startswith("/"):
            return None
        try:
            folder = self._open_job(job.id)
            try:
                return os.stat("/".join((".", *names[:-1])), dir_fd=folder).st_mtime
            finally:
                os.close(folder)
        except (PathNotFound, FileNotFoundError, NotADirectoryError, PermissionError):
            return None

    def log_tail(self, job: Job, limit: int = 1 << 16) -> str | None:
        """Return the log's last whole lines, at most `limit` bytes of UTF-8; None if there is no log.

        Raises OSError for a storage fault.
        """
        try:
            log = self.open_log(job)
        except LogMissing:
            return None
        try:
            return last_lines(log.fd, log.version.size, limit)
        finally:
            log.close()

    def _open_log(self, job: Job) -> OpenFile:
        log = self._open(job, job.details.log_path or DEFAULT_LOG, _open_described)
        try:
            content = fingerprint(log.fd, log.version.size)
        except BaseException:
            log.close()
            raise
        return log._replace(fingerprint=content)

    def _read_job(self, job_id: str, known: JobSnapshot | None) -> tuple[JobSnapshot, FoundOutputs]:
        """Read the record and find a completed job's outputs, with a single open of the job directory."""
        folder = self._open_job(job_id)
        try:
            record = self._records.read(job_id, folder, known)
            job = record.job
            outputs = self._finder.find(folder, job) if job.status is Status.COMPLETED else NO_OUTPUTS
        finally:
            os.close(folder)
        version, packed = outputs.main_version, outputs.packed
        if known is not None and known.job is job and known.has_versions(version, packed):
            return known, outputs
        snapshot = JobSnapshot(job, record.version, version, is_stable=record.is_stable, outputs=packed)
        return snapshot, outputs

    def _open(
        self,
        job: Job,
        path: str,
        open_names: Callable[[int, tuple[str, ...]], T],
        known: JobSnapshot | None = None,
    ) -> T:
        folder = self._open_job(job.id)
        try:
            opened = self._output_roots.open(open_names, folder, job.owner, path)
            try:
                self._check_owner(folder, job, known)
            except BaseException:
                _close(opened)
                raise
            else:
                return opened
        except PermissionError as denied:
            raise PathNotFound from denied
        finally:
            os.close(folder)

    def _check_owner(self, folder: int, job: Job, known: JobSnapshot | None) -> None:
        """Raise PathNotFound if the record now names another owner; an invalid record does not count.

        What was opened in this folder before may then be a file of that owner's job.
        """
        try:
            owner = self._records.read(job.id, folder, known).job.owner
        except (PathNotFound, BadRecord):
            return
        if owner != job.owner:
            raise PathNotFound

    def _open_job(self, job_id: str) -> int:
        """Open a job directory by its full path; raises PathNotFound, or OSError for a storage fault.

        No descriptor of the root is kept: it would keep an unmounted share busy, and still lead to it.
        """
        if not is_job_id(job_id):
            raise PathNotFound
        try:
            return os.open(f"{self._prefix}{job_id}", PATH_FLAGS)
        except OSError as failed:
            if failed.errno not in NOT_FOUND_ERRNOS:
                raise
            # Find out whether the job or the root is missing; a missing root raises OSError here.
            os.close(os.open(self.path, DIRECTORY_FLAGS))
            raise PathNotFound from failed


def _close(opened: OpenFile | int) -> None:
    os.close(opened if isinstance(opened, int) else opened.fd)


def _open_described(folder: int, names: tuple[str, ...]) -> OpenFile:
    return describe_open_file(*open_regular(folder, names))


def _open_parent(folder: int, names: tuple[str, ...]) -> int:
    return open_directory(folder, names[:-1])
