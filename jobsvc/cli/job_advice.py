"""Advice for the farm: what jobs lack that people would like to see. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from jobsvc.domain.job import Job, Status

REASONS: Final[Mapping[str, str]] = {
    "error": "failed jobs do not say why",
    "progress": "rendering jobs say neither how far they are (progress, framesDone) nor what they do (phase)",
    "startedAt": "rendering jobs do not say since when",
    "completedAt": "ended jobs do not say when, so that nobody sees how long they took",
    "createdAt": "after a restart jobs are listed by their last change: this storage has no creation times",
    "render.log": "failed jobs have no log",
}
"""What is missing, by the key or the file."""


def missing_parts(job: Job, *, has_log: bool, has_creation_time: bool) -> Iterator[str]:
    """Yield what a job should have in its state, as keys of REASONS."""
    details = job.details
    if job.status is Status.FAILED and not details.error:
        yield "error"
    if job.status is Status.RENDERING:
        if not (job.progress or details.frames_done or details.phase):
            yield "progress"
        if not details.started_at:
            yield "startedAt"
    if job.status.final and not details.completed_at:
        yield "completedAt"
    if job.status is not Status.QUEUED and not has_creation_time:
        yield "createdAt"
    if job.status is Status.FAILED and not has_log:
        yield "render.log"
