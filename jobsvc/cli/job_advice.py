"""Advice for the farm: keys that records lack and that people would like to see. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from jobsvc.domain.job import Job, Status

REASONS: Final[Mapping[str, str]] = {
    "error": "failed jobs do not say why",
    "progress": "rendering jobs say neither how far they are (progress, framesDone) nor what they do (phase)",
    "startedAt": "rendering jobs do not say since when",
    "completedAt": "ended jobs do not say when, so that nobody sees how long they took",
}
"""What is missing, by the key."""


def missing_keys(job: Job) -> Iterator[str]:
    """Yield keys that the record of a job should have in its state; they are keys of REASONS."""
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
