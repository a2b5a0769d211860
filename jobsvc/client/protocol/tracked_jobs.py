"""Follow some jobs over one stream of all unfinished jobs: however many are finished, they cost nothing."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any, Final, NamedTuple

from jobsvc.client.errors import JobNotFound, UnexpectedResponse
from jobsvc.client.models import UNFINISHED, Job, JobRemoved
from jobsvc.client.protocol.documents import parse_object, text, to_job, to_requested_job
from jobsvc.client.protocol.event_source import EventSource, JobListing
from jobsvc.client.protocol.long_lived import JsonResponse, Persistence
from jobsvc.client.protocol.sse import Event
from jobsvc.client.protocol.steps import Operation, Request
from jobsvc.client.protocol.targets import EVENTS, job_target, with_query

_TARGET: Final = with_query(EVENTS, [("status", status) for status in sorted(UNFINISHED)])
MAX_READS: Final = 6
"""Reads of a job that is unfinished although it is not in the stream: another replica can respond, later."""
READ_PAUSE_S: Final = 1.0
"""Seconds between two of these reads."""
_NOT_IN_EVENTS: Final = frozenset({"logs", "outputSha256", "outputs", "downloadUrl"})
"""Members that a job has in some responses only."""


class _DueRead(NamedTuple):
    """A read of a job that is not in the stream."""

    number: int
    """1 for the first."""
    at: float
    """Monotonic seconds."""


class TrackedJobs:
    """The newest known states of some jobs.

    A job that is not in the stream, or leaves it, is final or gone; then it is read.
    """

    def __init__(self, job_ids: Iterable[str], persistence: Persistence) -> None:
        self.known: dict[str, Job] = {}
        self._wanted = frozenset(job_ids)
        self._persistence = persistence
        self._source = EventSource(_TARGET, persistence)
        self._listing = JobListing()
        self._is_listed = False
        self._to_read: dict[str, _DueRead] = {}
        self._gone: set[str] = set()
        """Jobs that were deleted after they were known."""

    @property
    def is_complete(self) -> bool:
        """Whether the state of each job is known."""
        return self._is_listed and all(read.number > 1 for read in self._to_read.values())

    def next(self) -> Operation[Job | JobRemoved]:
        """Return the next new state of one of the jobs, its first one too.

        Raises JobNotFound if a job never existed; Problem, ConnectionFailed or DeadlinePassed.
        """
        while True:
            if self._to_read:
                change = yield from self._read_next()
            else:
                event = yield from self._source.next()
                if event is None:
                    raise UnexpectedResponse("The service ended the stream of all jobs, which does not end.")
                change = self._apply(event)
            if change is not None:
                return change

    def _apply(self, event: Event) -> Job | None:
        self._listing.begin(self._source.connection_count)
        if event.name == "present":
            self._end_list()
        elif event.name == "removed":
            job_id = text(parse_object(event.data), "id")
            if job_id in self._wanted:
                self._read_soon(job_id)
        elif event.name == "job":
            document = parse_object(event.data)
            if text(document, "id") in self._wanted:
                self._listing.add(event, document["id"])
                return self._update(to_job(document))
        return None

    def _end_list(self) -> None:
        """Read the jobs that the list lacks, unless they are known to be final."""
        for job_id in sorted(self._wanted - self._listing.end()):
            known = self.known.get(job_id)
            if known is None or not known.done:
                self._read_soon(job_id)
        self._is_listed = True

    def _read_soon(self, job_id: str) -> None:
        self._to_read.setdefault(job_id, _DueRead(1, monotonic()))

    def _read_next(self) -> Operation[Job | JobRemoved | None]:
        """Read the next job that is due; it is read again later if it is unfinished."""
        job_id, read = next(iter(self._to_read.items()))
        if (pause := read.at - monotonic()) > 0:
            yield from self._persistence.sleep(pause)
        change = yield from self._read(job_id)
        del self._to_read[job_id]
        job = self.known.get(job_id)
        if job is not None and not job.done and read.number < MAX_READS:
            self._to_read[job_id] = _DueRead(read.number + 1, monotonic() + READ_PAUSE_S)
        return change

    def _read(self, job_id: str) -> Operation[Job | JobRemoved | None]:
        def convert(response: JsonResponse) -> Job:
            return to_requested_job(response.document or {}, job_id, response.headers.get("etag"))

        try:
            job = yield from self._persistence.send_for_json(Request(job_target(job_id)), convert)
        except JobNotFound as exc:
            if self.known.pop(job_id, None) is not None:
                self._gone.add(job_id)
                return JobRemoved(job_id)
            if job_id in self._gone:
                return None
            raise named(exc, job_id) from exc
        return self._update(job)

    def _update(self, job: Job) -> Job | None:
        """Record a state; return it if it is new."""
        before, self.known[job.id] = self.known.get(job.id), job
        return None if before is not None and is_same_state(before, job) else job


def is_same_state(first: Job, second: Job) -> bool:
    """Return whether two responses show the same state, leaving out what only some of them contain."""
    return _comparable(first) == _comparable(second)


def named(error: JobNotFound, job_id: str) -> JobNotFound:
    """Return the error with the job's id in its text."""
    return JobNotFound(error.code, error.status, f"{job_id}: {error.detail}", error.request_id)


def _comparable(job: Job) -> dict[str, Any]:
    return {name: value for name, value in job.document.items() if name not in _NOT_IN_EVENTS}
