"""Follow changes of jobs as server-sent events, over reconnects."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from jobsvc.client.errors import JobNotFound
from jobsvc.client.models import Job, JobChanged, JobRemoved
from jobsvc.client.protocol.documents import parse_object, text, to_job
from jobsvc.client.protocol.event_source import EventSource, JobListing
from jobsvc.client.protocol.long_lived import Persistence
from jobsvc.client.protocol.sse import Event
from jobsvc.client.protocol.steps import Emit, Operation
from jobsvc.client.protocol.targets import EVENTS, job_target, with_query
from jobsvc.client.protocol.tracked_jobs import TrackedJobs, named


def watch(job_ids: Collection[str] = (), *, status: Iterable[str] = ()) -> Operation[None]:
    """Emit JobChanged and JobRemoved, first the current state of each job; without ids of all jobs.

    With ids, it ends once all of these jobs are final or gone. Raises JobNotFound if one never existed;
    Problem; ConnectionFailed if the service was away for too long.
    """
    unique, statuses = list(dict.fromkeys(job_ids)), frozenset(status)
    if not unique:
        yield from _watch_all(sorted(statuses))
    elif len(unique) == 1:
        yield from _watch_one(unique[0], _StatusFilter(statuses))
    else:
        yield from _watch_several(unique, _StatusFilter(statuses))


def _watch_one(job_id: str, status_filter: _StatusFilter) -> Operation[None]:
    source, known = EventSource(job_target(job_id, "events"), Persistence()), None
    while True:
        try:
            event = yield from source.next()
        except JobNotFound as exc:
            if known is None:
                raise named(exc, job_id) from exc
            event = Event("removed", "", None)
        if event is None:
            return
        if event.name == "removed":
            yield from status_filter.emit_removed(job_id)
            return
        if event.name == "job" and event.data != known:
            known, job = event.data, to_job(parse_object(event.data))
            yield from status_filter.emit(job)
            if job.done:
                return


def _watch_several(job_ids: Collection[str], status_filter: _StatusFilter) -> Operation[None]:
    tracked = TrackedJobs(job_ids, Persistence())
    while not (tracked.is_complete and all(job.done for job in tracked.known.values())):
        change = yield from tracked.next()
        if isinstance(change, JobRemoved):
            yield from status_filter.emit_removed(change.job_id)
        else:
            yield from status_filter.emit(change)


def _watch_all(statuses: Iterable[str]) -> Operation[None]:
    source = EventSource(with_query(EVENTS, [("status", status) for status in statuses]), Persistence())
    jobs = _AllJobs()
    while (event := (yield from source.next())) is not None:
        for change in jobs.apply(event, source.connection_count):
            yield Emit(change)


class _AllJobs:
    """What the caller knows of all jobs: a hash of each state, because there may be 100,000."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._listing = JobListing()

    def apply(self, event: Event, connection: int) -> list[JobChanged | JobRemoved]:
        """Return what is new to the caller."""
        self._listing.begin(connection)
        if event.name == "job":
            return self._apply_job(event)
        if event.name == "removed":
            return self._remove([text(parse_object(event.data), "id")])
        if event.name == "present":
            return self._remove(sorted(self._known.keys() - self._listing.end()))
        return []

    def _apply_job(self, event: Event) -> list[JobChanged | JobRemoved]:
        job, state = to_job(parse_object(event.data)), hash(event.data)
        self._listing.add(event, job.id)
        if self._known.get(job.id) == state:
            return []
        self._known[job.id] = state
        return [JobChanged(job)]

    def _remove(self, job_ids: Iterable[str]) -> list[JobChanged | JobRemoved]:
        return [JobRemoved(job_id) for job_id in job_ids if self._known.pop(job_id, None) is not None]


class _StatusFilter:
    """Emits the jobs in the requested states, and removes those that leave these states."""

    def __init__(self, statuses: Collection[str]) -> None:
        """Without statuses, all states are requested."""
        self._statuses = statuses
        self._emitted: set[str] = set()

    def emit(self, job: Job) -> Operation[None]:
        if self._statuses and job.status not in self._statuses:
            yield from self.emit_removed(job.id)
            return
        self._emitted.add(job.id)
        yield Emit(JobChanged(job))

    def emit_removed(self, job_id: str) -> Operation[None]:
        if job_id in self._emitted:
            self._emitted.remove(job_id)
            yield Emit(JobRemoved(job_id))
