"""Follow some jobs over one stream of all unfinished jobs: however many are finished, they cost nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from jobsvc.client.errors import JobNotFound, UnexpectedResponse
from jobsvc.client.models import UNFINISHED, Job, JobRemoved
from jobsvc.client.protocol.documents import parse_object, text, to_job, to_requested_job
from jobsvc.client.protocol.event_source import EventSource, JobListing
from jobsvc.client.protocol.long_lived import JsonResponse, Persistence
from jobsvc.client.protocol.sse import Event
from jobsvc.client.protocol.steps import Operation, Request
from jobsvc.client.protocol.targets import EVENTS, job_target, with_query

_TARGET: Final = with_query(EVENTS, [("status", status) for status in sorted(UNFINISHED)])
_NOT_IN_EVENTS: Final = frozenset({"logs", "outputSha256", "outputs", "downloadUrl"})
"""Members that a job has in some responses only."""


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
        self._to_read: deque[str] = deque()

    @property
    def is_complete(self) -> bool:
        """Whether the state of each job is known."""
        return self._is_listed and not self._to_read

    def next(self) -> Operation[Job | JobRemoved]:
        """Return the next new state of one of the jobs, its first one too.

        Raises JobNotFound if a job never existed; Problem, ConnectionFailed or DeadlinePassed.
        """
        while True:
            if self._to_read:
                change = yield from self._read(self._to_read[0])
                self._to_read.popleft()
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
                self._to_read.append(job_id)
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
            if (known is None or not known.done) and job_id not in self._to_read:
                self._to_read.append(job_id)
        self._is_listed = True

    def _read(self, job_id: str) -> Operation[Job | JobRemoved | None]:
        def convert(response: JsonResponse) -> Job:
            return to_requested_job(response.document or {}, job_id, response.headers.get("etag"))

        try:
            job = yield from self._persistence.send_for_json(Request(job_target(job_id)), convert)
        except JobNotFound as exc:
            if self.known.pop(job_id, None) is not None:
                return JobRemoved(job_id)
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
