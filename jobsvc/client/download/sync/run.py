"""Run a sync: visit the jobs that have changed, download what is missing of their files, follow changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic, time
from typing import Final, NamedTuple, Protocol

from jobsvc.client.download.stopping import Idle
from jobsvc.client.download.sync.errors import is_fatal, is_outage
from jobsvc.client.download.sync.folder import Folder
from jobsvc.client.download.sync.owners import Owners
from jobsvc.client.download.sync.plan import (
    Action,
    NameTemplate,
    PlannedFile,
    jobs_to_visit,
    plan_files,
)
from jobsvc.client.download.sync.state import ListedJob, SyncState, listed_job
from jobsvc.client.errors import JobNotFound, JobsvcError, NotReady, OutputReplaced, ServiceUnavailable
from jobsvc.client.models import Downloaded, File, Job, JobChanged, JobRemoved

GROUP_JOBS: Final = 64
GROUP_FILES: Final = 256
GROUP_BYTES: Final = 512 << 20
"""Jobs, files or bytes that are listed before they are downloaded, at least."""
MAX_ATTEMPTS: Final = 3
"""How often a job is listed and downloaded whose files are replaced meanwhile."""
MAX_UNAVAILABLE: Final = 3
"""Jobs in a row for which the service responds 5xx, before the sync ends."""
PASS_INTERVAL_S: Final = 900.0
"""Seconds after which jobs are listed again although changes are followed."""
OUTAGE_PAUSE_S: Final = 30.0
MAX_OUTAGE_S: Final = 600.0
"""While changes are followed: pause after a failure of the service, and how long it may be away."""

log = logging.getLogger("jobsvc.client")


class Service(Protocol):
    """The requests of a sync."""

    def jobs(self, updated_since: datetime | None) -> Iterator[Job]:
        """Yield the selected jobs that were updated at or after a time."""

    def job(self, job_id: str) -> Job:
        """Return a job."""

    def files(self, job_id: str) -> list[File]:
        """Return the files of a job, and request their digests."""

    def watch(self) -> Iterator[JobChanged | JobRemoved | Idle]:
        """Yield the current state of each selected job and each change; Idle before each wait."""

    def download(self, files: Sequence[tuple[File, Path]]) -> Iterator[Downloaded]:
        """Download files to their targets, and replace what is there.

        A target with the size and the time of its file is compared by SHA-256, and skipped if it is equal.
        """


class _Visit(NamedTuple):
    """A job whose files were listed."""

    job: ListedJob
    paths: list[str]
    missing: list[tuple[PlannedFile, Path]]
    """The files to download, or to compare, and their targets."""


class SyncRun:
    """One run of a sync into one directory."""

    def __init__(
        self,
        service: Service,
        state: SyncState,
        template: NameTemplate,
        folder: Folder,
        *,
        status: Iterable[str],
        clock: Callable[[], float] = time,
    ) -> None:
        """`status`: the states of the selected jobs. `clock` returns seconds since the epoch."""
        self.failures: dict[str, JobsvcError] = {}
        """Why jobs could not be downloaded, by id."""
        self._not_ready: set[str] = set()
        """Completed jobs whose files were refused because the service, another replica, did not know that."""
        self._service = service
        self._state = state
        self._template = template
        self._folder = folder
        self._owners = Owners(state, template, folder.is_insensitive)
        self._status = frozenset(status)
        self._clock = clock
        self._unavailable = 0
        """Jobs in a row for which the service responded 5xx."""
        self._has_listed = False
        """Whether the service has listed its jobs for this run."""

    def run_pass(self) -> Iterator[Downloaded]:
        """List the jobs that have changed since the last pass, and download what is missing of them."""
        now = self._clock()
        since = self._state.updated_since(now)
        listed = {job.id: job for job in map(listed_job, self._service.jobs(since))}
        self._has_listed = True
        unfinished = [job_id for job_id in self._state.unfinished() if job_id not in listed]
        yield from self._visit_all(jobs_to_visit(listed.values(), self._state))
        yield from self._visit_all(self._look_up(unfinished))
        newest = max((job.updated_at for job in listed.values()), default=None)
        self._state.listed(listed, newest, now, is_full=since is None)
        self._state.save()

    def run_pass_before_following(self) -> Iterator[Downloaded]:
        """Run a pass; what an outage after the list leaves undone is left to `follow`."""
        try:
            yield from self.run_pass()
        except JobsvcError as exc:
            if not self._has_listed or not is_outage(exc):
                raise

    def follow(self) -> Iterator[Downloaded]:
        """Download jobs as they change; a pass every PASS_INTERVAL_S finds changes that no event reported."""
        changed: dict[str, ListedJob] = {}
        next_pass, resume_at, failing_since = monotonic() + PASS_INTERVAL_S, 0.0, None
        for item in self._service.watch():
            if isinstance(item, JobChanged):
                changed[item.job.id] = listed_job(item.job)
            elif isinstance(item, JobRemoved):
                changed.pop(item.job_id, None)
            elif monotonic() >= resume_at:
                try:
                    yield from self._visit_all(list(jobs_to_visit(changed.values(), self._state)))
                    if monotonic() >= next_pass:
                        yield from self.run_pass()
                        next_pass = monotonic() + PASS_INTERVAL_S
                    changed = {job_id: job for job_id, job in changed.items() if job_id in self._not_ready}
                    self._not_ready, failing_since = set(), None
                except JobsvcError as exc:
                    failing_since = failing_since or monotonic()
                    if not is_outage(exc) or monotonic() - failing_since >= MAX_OUTAGE_S:
                        raise
                    resume_at = monotonic() + OUTAGE_PAUSE_S
                self._state.save()
                self._report_failures()

    def _report_failures(self) -> None:
        for job_id, error in self.failures.items():
            log.warning("%s could not be downloaded and is tried again later: %s", job_id, error)
        self.failures = {}

    def _look_up(self, job_ids: Iterable[str]) -> Iterator[ListedJob]:
        """Yield jobs that earlier runs left unfinished, and that are not among those that have changed."""
        for job_id in job_ids:
            try:
                job = listed_job(self._service.job(job_id))
            except JobNotFound:
                self._state.job_gone(job_id)
                continue
            if job.status in self._status:
                yield job
            else:
                self._state.job_gone(job_id)

    def _visit_all(self, jobs: Iterable[ListedJob]) -> Iterator[Downloaded]:
        group: list[_Visit] = []
        for job in jobs:
            visit = self._list_files(job)
            if visit is not None:
                group.append(visit)
            if _is_full(group):
                yield from self._download_group(group)
                group = []
        yield from self._download_group(group)

    def _list_files(self, job: ListedJob) -> _Visit | None:
        """List a job's files and return what is missing; None if nothing is, or if that is unknown."""
        try:
            visit = self._plan(job, self._service.files(job.id))
        except NotReady:
            # A failed or canceled job has no files; one that was completed a moment ago is listed again.
            if job.status == "completed":
                self._not_ready.add(job.id)
            else:
                self._state.finish(job)
        except JobNotFound:
            self._state.job_gone(job.id)
        except JobsvcError as exc:
            self._failed(job.id, exc)
        else:
            if visit.missing:
                return visit
            self._finish(visit)
        return None

    def _plan(self, job: ListedJob, files: Sequence[File]) -> _Visit:
        paths = self._template.paths(files)
        self._owners.claim(job.id, paths)
        targets = self._folder.targets(paths)
        planned = plan_files(
            files,
            paths,
            self._state.files_of(job.id),
            lambda file, path: self._folder.looks_present(file, targets[path]),
        )
        missing = [(each, targets[each.path]) for each in planned if each.action is not Action.NOTHING]
        self._folder.make_parents(target for _, target in missing)
        return _Visit(job, paths, missing)

    def _download_group(self, group: Sequence[_Visit]) -> Iterator[Downloaded]:
        """Download the files of several jobs at the same time; after an error those of each job alone."""
        try:
            yield from self._download(group)
        except JobsvcError as exc:
            if is_fatal(exc):
                raise
            if len(group) == 1 and not isinstance(exc, OutputReplaced):
                self._failed(group[0].job.id, exc)
                return
        else:
            return
        for visit in group:
            yield from self._download_alone(visit.job)

    def _download_alone(self, job: ListedJob) -> Iterator[Downloaded]:
        """List the files of a job again and download what is missing."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            visit = self._list_files(job)
            if visit is None:
                return
            try:
                yield from self._download([visit])
            except JobsvcError as exc:
                if is_fatal(exc):
                    raise
                if not isinstance(exc, OutputReplaced) or attempt == MAX_ATTEMPTS:
                    self._failed(job.id, exc)
                    return
            else:
                return

    def _download(self, group: Sequence[_Visit]) -> Iterator[Downloaded]:
        for visit in group:
            self._state.begin(visit.job.id)
        jobs = {target: (visit, each.path) for visit in group for each, target in visit.missing}
        files = [(each.file, target) for visit in group for each, target in visit.missing]
        for done in self._service.download(files):
            visit, path = jobs[done.path]
            self._state.add_file(visit.job.id, path, done.etag)
            if not done.skipped:
                yield done
        for visit in group:
            self._finish(visit)

    def _finish(self, visit: _Visit) -> None:
        self._state.finish(visit.job, visit.paths)
        self.failures.pop(visit.job.id, None)
        self._unavailable = 0

    def _failed(self, job_id: str, error: JobsvcError) -> None:
        """Record that a job could not be downloaded; raise the error if it concerns all jobs."""
        self._state.begin(job_id)
        self.failures[job_id] = error
        self._unavailable = self._unavailable + 1 if isinstance(error, ServiceUnavailable) else 0
        if is_fatal(error) or self._unavailable >= MAX_UNAVAILABLE:
            raise error


def _is_full(group: Sequence[_Visit]) -> bool:
    sizes = [each.file.size for visit in group for each, _ in visit.missing]
    return len(group) >= GROUP_JOBS or len(sizes) >= GROUP_FILES or sum(sizes) >= GROUP_BYTES
