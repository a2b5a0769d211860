"""Check job directories for `jobsvc check`: errors that prevent serving a job, and statistics."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from pathlib import Path

from jobsvc.cli.job_advice import missing_parts
from jobsvc.cli.output_check import Contents, check_outputs
from jobsvc.domain.job import Job, Status
from jobsvc.domain.status_record import BadRecord
from jobsvc.index.watch.job_folders import folders_to_watch
from jobsvc.storage.files.os_errors import describe
from jobsvc.storage.files.safe_open import PathNotFound
from jobsvc.storage.files.statx import birth_time
from jobsvc.storage.jobs.path_diagnosis import MISSING, explain
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import DEFAULT_LOG, STATUS_FILE


@dataclass(frozen=True, slots=True)
class Finding:
    """One error in a job directory, to be fixed by the farm."""

    job: str
    code: str
    """bad-record, record-missing, log-unusable, storage, or the code of a Problem."""
    reason: str


class Survey:
    """Check jobs one by one and collect statistics."""

    def __init__(self, root: JobsRoot, *, stalled_after: float = 0) -> None:
        """Treat unfinished jobs as stalled if not written for `stalled_after` seconds; 0 means never."""
        self.root = root
        self.stalled_after = stalled_after
        self.found = 0
        """Number of jobs with at least one finding."""
        self.directories = 0
        """Number of directories that the service would watch."""
        self.stalled: list[str] = []
        """Ids of stalled jobs."""
        self.nested: list[str] = []
        """Directories that are not jobs but contain job directories."""
        self.advice: dict[str, list[str]] = {}
        """Ids of jobs that lack a key or the log, by the key or `render.log`."""
        self.contents: Contents | None = None
        """The files of the job that was examined last, if it has several."""
        self._times_gcd_ns = 0

    @property
    def timestamp_granularity(self) -> float | None:
        """Granularity of the storage's timestamps in seconds, as seen in the records; None if unknown."""
        for step in (10**9, 10**6, 1000, 100, 1):
            if self._times_gcd_ns and self._times_gcd_ns % step == 0:
                return step / 1e9
        return None

    def examine(self, job_id: str) -> list[Finding]:
        """Read a job as the service does; return the errors of its record, output and log."""
        self.directories += 1
        self.contents = None
        findings = self._examine(job_id)
        self.found += bool(findings)
        return findings

    def _examine(self, job_id: str) -> list[Finding]:
        try:
            snapshot = self.root.read(job_id)
        except PathNotFound:
            return self._without_record(job_id)
        except BadRecord as error:
            return [Finding(job_id, "bad-record", str(error))]
        except OSError as error:
            return [_storage_error(job_id, error)]
        self.directories += len(folders_to_watch(snapshot) or ())
        # ctime, because it cannot be set; an mtime may come from an archive, with another granularity.
        self._times_gcd_ns = gcd(self._times_gcd_ns, snapshot.record_version.ctime_ns)
        if self._is_stalled(snapshot):
            self.stalled.append(job_id)
        log_problem = self._explain(job_id, snapshot.job.details.log_path or DEFAULT_LOG)
        for part in missing_parts(
            snapshot.job,
            has_log=log_problem != MISSING,
            has_creation_time=self._has_birth_times or not _is_created_at_last_write(snapshot),
        ):
            self.advice.setdefault(part, []).append(job_id)
        findings = self._of_outputs(snapshot)
        if log_problem is not None and (of_log := _of_log(snapshot.job, log_problem)) is not None:
            findings.append(of_log)
        return findings

    @cached_property
    def _has_birth_times(self) -> bool:
        """Whether the storage has the creation times that replace `createdAt`."""
        folder = os.open(self.root.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return birth_time(folder) is not None
        finally:
            os.close(folder)

    def _without_record(self, job_id: str) -> list[Finding]:
        folder = self.root.path / job_id
        problem = explain(folder, STATUS_FILE)
        if problem == MISSING:
            if not folder.is_dir():  # removed in the meantime
                return []
            if _holds_jobs(folder):
                self.nested.append(job_id)
                return []
        return [Finding(job_id, "record-missing", f"{STATUS_FILE}: {problem or MISSING}")]

    def _is_stalled(self, snapshot: JobSnapshot) -> bool:
        age = time.time() - snapshot.record_version.mtime_ns / 1e9
        return not snapshot.job.status.final and 0 < self.stalled_after < age

    def _of_outputs(self, snapshot: JobSnapshot) -> list[Finding]:
        job_id = snapshot.job.id
        if snapshot.job.status is not Status.COMPLETED:
            return []
        try:
            problems, self.contents = check_outputs(self.root, snapshot)
        except OSError as error:
            return [_storage_error(job_id, error)]
        return [Finding(job_id, *problem) for problem in problems]

    def _explain(self, job_id: str, path: str) -> str | None:
        return explain(self.root.path / job_id, path, self.root.output_roots)


def _of_log(job: Job, problem: str) -> Finding | None:
    """Return the error of the log; a missing log is an error only if a finished job names it."""
    path = job.details.log_path
    if problem == MISSING and not (path and job.status.final):
        return None
    named = f"logPath: {path[:200]!r}" if path else f"log: {DEFAULT_LOG!r}"
    return Finding(job.id, "log-unusable", f"{named} {problem}")


def _is_created_at_last_write(snapshot: JobSnapshot) -> bool:
    """Return whether the job's creation time is the modification time of its record, as without createdAt."""
    return snapshot.job.created_order == snapshot.record_version.mtime_ns // 1000


def _storage_error(job_id: str, error: OSError) -> Finding:
    return Finding(job_id, "storage", f"storage: {describe(error)}")


def _holds_jobs(folder: Path) -> bool:
    try:
        return any((each / STATUS_FILE).is_file() for each in folder.iterdir() if each.is_dir())
    except OSError:
        return False
