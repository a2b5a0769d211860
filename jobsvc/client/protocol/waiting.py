"""Wait until jobs are final: one by long poll, several by one event stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from jobsvc.client.errors import JobNotFound, WaitTimeout
from jobsvc.client.models import Job, JobRemoved
from jobsvc.client.protocol.long_lived import DeadlinePassed, Persistence
from jobsvc.client.protocol.polled_job import PolledJob
from jobsvc.client.protocol.steps import Operation
from jobsvc.client.protocol.tracked_jobs import TrackedJobs

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
            yield from _follow(PolledJob(job_ids[0], persistence), known, on_change, all)
        elif job_ids:
            enough = any if first_only else all
            yield from _follow(TrackedJobs(job_ids, persistence), known, on_change, enough)
    except DeadlinePassed:
        jobs = [known[job_id] for job_id in job_ids if job_id in known]
        raise WaitTimeout(_describe(job_ids, known, timeout or 0, persistence), jobs) from None
    return [known[job_id] for job_id in job_ids]


def _follow(
    jobs: PolledJob | TrackedJobs,
    known: dict[str, Job],
    on_change: Callable[[Job], object] | None,
    enough: Callable[[list[bool]], bool],
) -> Operation[None]:
    """Record each new state in `known`, until the states of all jobs are known and `enough` are final."""
    while not (jobs.is_complete and enough([job.done for job in known.values()])):
        change = yield from jobs.next()
        if isinstance(change, JobRemoved):
            raise JobNotFound(
                "job-not-found", 404, f"{change.job_id}: the job was deleted while it was waited for."
            )
        known[change.id] = change
        if on_change is not None:
            on_change(change)


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
