"""Wait until jobs are final: one by long poll, several by one event stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from jobsvc.client.errors import JobNotFound, UnexpectedResponse, WaitTimeout
from jobsvc.client.models import Job, JobRemoved
from jobsvc.client.protocol.documents import to_job
from jobsvc.client.protocol.long_lived import DeadlinePassed, Persistence
from jobsvc.client.protocol.steps import Operation, Request
from jobsvc.client.protocol.targets import job_target, with_query
from jobsvc.client.protocol.tracked_jobs import TrackedJobs, is_same_state, named

POLL_S: Final = 55.0
"""Seconds of one long poll: the service ends longer ones, before common proxies time out."""
POLL_TIMEOUT_S: Final = 75.0
"""Seconds without a byte until a long poll counts as dead."""
MIN_INTERVAL_S = 1.0
"""Minimum seconds between two polls of a job that changes all the time. Tests set it."""
MAX_INTERVAL_S: Final = 30.0
"""Maximum seconds between two polls if something responds to each at once, as a cache does."""
_MAX_EARLY: Final = 5
_MAX_NAMED: Final = 10
"""Jobs that a message names."""


def wait(
    job_ids: Sequence[str],
    *,
    timeout: float | None = None,
    on_change: Callable[[Job], object] | None = None,
    first_only: bool = False,
) -> Operation[list[Job]]:
    """Return the jobs, in the order of the ids, once all are final; with `first_only`, once one is.

    `on_change` is called with each new state, the first one too. Raises WaitTimeout after `timeout` seconds;
    JobNotFound, also if a job is deleted; ConnectionFailed if the service was away for too long.
    """
    persistence, known = Persistence(timeout), dict[str, Job]()
    try:
        if len(set(job_ids)) == 1:
            yield from _poll(job_ids[0], known, persistence, on_change)
        elif job_ids:
            yield from _follow(job_ids, known, persistence, on_change, any if first_only else all)
    except DeadlinePassed:
        jobs = [known[job_id] for job_id in job_ids if job_id in known]
        raise WaitTimeout(_describe(job_ids, known, timeout or 0, persistence), jobs) from None
    return [known[job_id] for job_id in job_ids]


def _poll(
    job_id: str, known: dict[str, Job], persistence: Persistence, on_change: Callable[[Job], object] | None
) -> Operation[None]:
    """Request one job, each time when it has changed."""
    job, early = None, 0
    while job is None or not job.done:
        started_at, wait_s = monotonic(), 0.0 if job is None else min(POLL_S, persistence.remaining)
        new = yield from _poll_once(job_id, job, wait_s, persistence)
        elapsed = monotonic() - started_at
        if job is None or not is_same_state(job, new):
            early, pause = 0, MIN_INTERVAL_S - elapsed if job is not None else 0.0
            known[job_id] = new
            if on_change is not None:
                on_change(new)
        else:
            early = min(early + 1, _MAX_EARLY) if elapsed < wait_s / 2 else 0
            pause = min(MAX_INTERVAL_S, MIN_INTERVAL_S * 2**early) if early else 0.0
        job = new
        if not job.done:
            yield from persistence.sleep(max(0.0, pause))


def _poll_once(job_id: str, job: Job | None, wait_s: float, persistence: Persistence) -> Operation[Job]:
    """Return the job's state, once it differs from `job` or after `wait_s` seconds."""
    target = job_target(job_id)
    if job is None:
        request = Request(target)
    else:
        headers = {} if job.etag is None else {"if-none-match": job.etag}
        target = with_query(target, [("wait", f"{wait_s:.2f}")])
        request = Request(target, headers=headers, timeout=POLL_TIMEOUT_S)
    try:
        document, headers_received = yield from persistence.send_for_json(request)
    except JobNotFound as exc:
        raise (named(exc, job_id) if job is None else _deleted(job_id)) from exc
    if document is not None:
        return to_job(document, headers_received.get("etag"))
    if job is None:
        raise UnexpectedResponse("304 to a request without a condition: a proxy changes requests.")
    return job


def _follow(
    job_ids: Sequence[str],
    known: dict[str, Job],
    persistence: Persistence,
    on_change: Callable[[Job], object] | None,
    enough: Callable[[list[bool]], bool],
) -> Operation[None]:
    """Follow several jobs until `enough` of them are final."""
    tracked = TrackedJobs(job_ids, persistence)
    while not (tracked.is_complete and enough([job.done for job in known.values()])):
        change = yield from tracked.next()
        if isinstance(change, JobRemoved):
            raise _deleted(change.job_id)
        known[change.id] = change
        if on_change is not None:
            on_change(change)


def _deleted(job_id: str) -> JobNotFound:
    return JobNotFound("job-not-found", 404, f"{job_id}: the job was deleted while it was waited for.")


def _describe(job_ids: Sequence[str], known: dict[str, Job], timeout: float, persistence: Persistence) -> str:
    unfinished = [
        job_id for job_id in dict.fromkeys(job_ids) if job_id not in known or not known[job_id].done
    ]
    states = [_describe_job(job_id, known.get(job_id)) for job_id in unfinished[:_MAX_NAMED]]
    if len(unfinished) > _MAX_NAMED:
        states.append(f"and {len(unfinished) - _MAX_NAMED} more")
    text = f"Not finished after {timeout:g} s: {', '.join(states)}."
    return text if persistence.last_error is None else f"{text} {persistence.last_error}"


def _describe_job(job_id: str, job: Job | None) -> str:
    if job is None:
        return f"{job_id} (state unknown)"
    return (
        f"{job_id} ({job.status})"
        if job.status == "queued"
        else f"{job_id} ({job.status}, {job.progress:.0f} %)"
    )
