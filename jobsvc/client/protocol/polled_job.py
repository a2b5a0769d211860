"""Follow one job by long polls: one request a minute while it does not change."""

from __future__ import annotations

from time import monotonic
from typing import Final

from jobsvc.client.errors import ConnectionFailed, JobNotFound, Problem, UnexpectedResponse
from jobsvc.client.models import Job, JobRemoved
from jobsvc.client.protocol.documents import to_requested_job
from jobsvc.client.protocol.long_lived import JsonResponse, Persistence
from jobsvc.client.protocol.steps import Operation, Request
from jobsvc.client.protocol.targets import job_target, with_query
from jobsvc.client.protocol.tracked_jobs import is_same_state, named

POLL_S: Final = 55.0
"""Seconds of one long poll: the service ends longer ones, before common proxies time out."""
MIN_POLL_S: Final = 5.0
"""Seconds of the shortest polls, if a proxy cuts longer ones."""
POLL_TIMEOUT_S: Final = 75.0
"""Seconds without a byte until a long poll counts as dead."""
MIN_INTERVAL_S = 1.0
"""Minimum seconds between two polls of a job that changes all the time. Tests set it."""
MAX_INTERVAL_S: Final = 30.0
"""Maximum seconds between two polls if each ends early without a change, as through a cache."""

_MAX_DOUBLINGS: Final = 5
_CUTS_IN_A_ROW: Final = 2
"""Polls that fail before they are shortened: a service that restarts cuts one, too."""
_SHORTENED: Final = 0.75


class PolledJob:
    """The newest known state of one job."""

    def __init__(self, job_id: str, persistence: Persistence) -> None:
        self._job_id = job_id
        self._persistence = persistence
        self._known: Job | None = None
        self._ask_first = True
        """Whether the service has to be asked for the current state before it is polled."""
        self._poll_s = POLL_S
        self._cuts = 0
        """Polls in a row that were cut."""
        self._early = 0
        """Polls in a row that ended early without a change."""
        self._pause_s = 0.0
        """Seconds until the next poll."""

    @property
    def is_complete(self) -> bool:
        """Whether the state is known."""
        return self._known is not None

    def next(self) -> Operation[Job | JobRemoved]:
        """Return the next new state, first the current one.

        Raises JobNotFound if the job never existed; Problem, ConnectionFailed or DeadlinePassed.
        """
        while True:
            try:
                job = yield from (self._ask() if self._ask_first else self._poll())
            except JobNotFound as exc:
                if self._known is None:
                    raise named(exc, self._job_id) from exc
                return JobRemoved(self._job_id)
            except (ConnectionFailed, Problem) as exc:
                self._ask_first = True
                yield from self._persistence.pause(exc)
                continue
            is_new, self._known = self._is_new(job), job
            if is_new:
                return job

    def _ask(self) -> Operation[Job]:
        """Request the state as it is now."""
        job = yield from self._request(Request(job_target(self._job_id)))
        self._ask_first = False
        return job

    def _poll(self) -> Operation[Job]:
        """Request the state once it differs from the known one, or after some time."""
        self._persistence.check_deadline()
        if self._pause_s:
            yield from self._persistence.sleep(self._pause_s)
        wait_s, started_at = min(self._poll_s, self._persistence.remaining), monotonic()
        target = with_query(job_target(self._job_id), [("wait", f"{wait_s:.2f}")])
        try:
            job = yield from self._request(Request(target, timeout=POLL_TIMEOUT_S))
        except (ConnectionFailed, Problem):
            elapsed = monotonic() - started_at
            self._shorten(elapsed)
            self._plan(wait_s, elapsed, is_new=False)
            raise
        self._cuts = 0
        self._plan(wait_s, monotonic() - started_at, is_new=self._is_new(job))
        return job

    def _shorten(self, elapsed: float) -> None:
        """Request shorter polls if a proxy cuts each one."""
        if elapsed >= MIN_POLL_S:
            self._cuts += 1
            if self._cuts >= _CUTS_IN_A_ROW:
                self._poll_s = max(MIN_POLL_S, min(self._poll_s, elapsed * _SHORTENED))

    def _plan(self, wait_s: float, elapsed: float, *, is_new: bool) -> None:
        """Set the pause before the next poll."""
        self._early = self._early + 1 if elapsed < wait_s / 2 and not is_new else 0
        if self._early:
            self._pause_s = min(MAX_INTERVAL_S, MIN_INTERVAL_S * 2 ** min(self._early, _MAX_DOUBLINGS))
        else:
            self._pause_s = max(0.0, MIN_INTERVAL_S - elapsed) if is_new else 0.0

    def _request(self, request: Request) -> Operation[Job]:
        etag = None if self._known is None else self._known.etag
        if etag is not None:
            request = request._replace(headers={"if-none-match": etag})
        return (yield from self._persistence.try_for_json(request, self._convert))

    def _convert(self, response: JsonResponse) -> Job:
        if response.document is not None:
            return to_requested_job(response.document, self._job_id, response.headers.get("etag"))
        if self._known is None:
            raise UnexpectedResponse("304 to a request without a condition: a proxy changes requests.")
        return self._known

    def _is_new(self, job: Job) -> bool:
        return self._known is None or not is_same_state(self._known, job)
