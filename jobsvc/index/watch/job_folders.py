"""Which folders of a job are watched along with its directory: pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from jobsvc.domain.job import Status
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import components

Folders: TypeAlias = tuple[str, ...]
"""Folders of a job that are watched along with its directory, relative to it."""

MAX_DEPTH: Final = 3
"""An output deeper within its job is not watched."""


@lru_cache(maxsize=4096)
def folders_to(output_path: str) -> Folders | None:
    """Name the folders from a job's directory to its output; None where no watch of ours could tell of it."""
    names = components(output_path)
    if names is None:
        return ()
    if output_path.startswith("/") or len(names) > MAX_DEPTH + 1:
        return None
    return tuple("/".join(names[:depth]) for depth in range(1, len(names)))


def needed(reading: JobSnapshot) -> Folders | None:
    """Name the folders that must be watched for silence to prove that this reading is still true."""
    if reading.job.status is not Status.COMPLETED:
        return ()
    return folders_to(reading.job.output_path or "")


def size_of(batch: Mapping[str, Folders]) -> int:
    """Count the directories of jobs and their folders."""
    return len(batch) + sum(map(len, batch.values()))


def paths(job_id: str, folders: Folders) -> list[str]:
    """Name a job's directory and its folders, relative to the root."""
    return [job_id, *(f"{job_id}/{folder}" for folder in folders)]
