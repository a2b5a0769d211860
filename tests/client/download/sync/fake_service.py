"""A service whose jobs change between and during the runs of a sync, in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from jobsvc.client.download.stopping import IDLE, Idle
from jobsvc.client.download.sync.folder import Folder
from jobsvc.client.download.sync.plan import NameTemplate
from jobsvc.client.download.sync.run import SyncRun
from jobsvc.client.download.sync.state import SyncSource, SyncState
from jobsvc.client.errors import JobNotFound, JobsvcError, NotReady, OutputReplaced
from jobsvc.client.models import Downloaded, File, Job, JobChanged, JobRemoved

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Crash(BaseException):
    """The process ends."""


class FakeFile:
    """One version of a file."""

    def __init__(self, version: int, size: int, modified_at: datetime) -> None:
        self.content = f"{version}".encode().ljust(size, b".")
        self.etag = f'"{version:022}"'
        self.modified_at = modified_at


class FakeJob:
    """A job, and its files by output and path."""

    def __init__(self, updated_at: datetime) -> None:
        self.status = "completed"
        self.updated_at = updated_at
        self.files: dict[tuple[str, str], FakeFile] = {}


class FakeService:
    """Implements the requests of a sync."""

    def __init__(self) -> None:
        self.now = EPOCH
        self.jobs_by_id: dict[str, FakeJob] = {}
        self.versions = 0
        self.requests: list[str] = []
        self.downloaded: list[str] = []
        self.fails: dict[str, JobsvcError] = {}
        """Errors of downloads, by job."""
        self.list_fails: dict[str, JobsvcError] = {}
        """Errors of lists of files, by job."""
        self.on_step: Callable[[], None] = lambda: None
        """Called before each request and around each download: may raise Crash or change jobs."""

    def write(self, job_id: str, output: str, path: str, size: int = 10) -> None:
        """Add or replace a file, and update the job's record."""
        job = self.jobs_by_id.setdefault(job_id, FakeJob(self.now))
        self.versions += 1
        job.files[output, path] = FakeFile(self.versions, size, self.now)
        self.touch(job_id)

    def touch(self, job_id: str) -> None:
        """Update a job's record."""
        self.now += timedelta(seconds=1)
        self.jobs_by_id[job_id].updated_at = self.now

    def clock(self) -> float:
        """Return the time of the service, in seconds since the epoch."""
        return self.now.timestamp()

    def jobs(self, updated_since: datetime | None) -> Iterator[Job]:
        """Yield the completed jobs."""
        self._request(f"jobs {'all' if updated_since is None else 'changed'}")
        for job_id, job in list(self.jobs_by_id.items()):
            if job.status == "completed" and (updated_since is None or job.updated_at >= updated_since):
                yield _model(job_id, job)

    def job(self, job_id: str) -> Job:
        """Return a job."""
        self._request(f"job {job_id}")
        return _model(job_id, self._find(job_id))

    def files(self, job_id: str) -> list[File]:
        """Return the files of a job."""
        self._request(f"files {job_id}")
        if (error := self.list_fails.get(job_id)) is not None:
            raise error
        job = self._find(job_id)
        if job.status != "completed":
            raise NotReady("job-not-completed", 409, "It is not completed.")
        return [self._file(job_id, *key, file) for key, file in sorted(job.files.items())]

    def _file(self, job_id: str, output: str, path: str, file: FakeFile) -> File:
        size = len(file.content)
        return File(job_id, output, path, None, size, file.modified_at, "image/x-exr", file.etag, None)

    def watch(self) -> Iterator[JobChanged | JobRemoved | Idle]:
        """Yield the current state of each job."""
        for job_id, job in self.jobs_by_id.items():
            yield JobChanged(_model(job_id, job))
        yield IDLE

    def download(self, files: Sequence[tuple[File, Path]]) -> Iterator[Downloaded]:
        """Write files; a target that is equal is skipped."""
        for file, target in files:
            self.on_step()
            yield self._download(file, target)
            self.on_step()

    def _download(self, file: File, target: Path) -> Downloaded:
        if (error := self.fails.get(file.job_id)) is not None:
            raise error
        current = self._find(file.job_id).files.get((file.output, file.path))
        if current is None or current.etag != file.etag:
            raise OutputReplaced("output-replaced", 412, "It was replaced.")
        digest = hashlib.sha256(current.content).hexdigest()
        is_same = target.is_file() and target.read_bytes() == current.content
        if not is_same:
            self.downloaded.append(f"{file.job_id}/{file.output}/{file.path}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(current.content)
            os.utime(target, (0, current.modified_at.timestamp()))
        return Downloaded(target, file.job_id, file.output, file.size, file.etag, digest, skipped=is_same)

    def _request(self, request: str) -> None:
        self.on_step()
        self.requests.append(request)

    def _find(self, job_id: str) -> FakeJob:
        if job_id not in self.jobs_by_id:
            raise JobNotFound("job-not-found", 404, "There is no such job.")
        return self.jobs_by_id[job_id]


def _model(job_id: str, job: FakeJob) -> Job:
    document: dict[str, Any] = {"updatedAt": job.updated_at.isoformat()}
    return Job(job_id, job.status, 100.0, EPOCH, job.updated_at, None, document)


def start(service: FakeService, folder: Path, name: str = "{id}/{path}") -> tuple[SyncRun, SyncState]:
    """Load the state of a folder as a new process does, and return a run."""
    state = SyncState.load(folder, SyncSource("http://service", name, ("completed",), "0123"))
    run = SyncRun(
        service,
        state,
        NameTemplate(name),
        Folder(folder),
        status=("completed",),
        clock=service.clock,
    )
    return run, state


def sync(service: FakeService, folder: Path, name: str = "{id}/{path}") -> list[Downloaded]:
    """Run one pass as a new process."""
    run, state = start(service, folder, name)
    try:
        done = list(run.run_pass())
    finally:
        state.save()
    assert not run.failures, run.failures
    return done
