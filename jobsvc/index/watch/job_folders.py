"""Determine which folders of a job are watched along with its directory. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from jobsvc.domain.job import Status
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import components

Folders: TypeAlias = tuple[str, ...]
"""Folders that are watched along with a job directory, relative to it."""

MAX_DEPTH: Final = 3
"""Maximum number of folders between a job directory and its output; a deeper output is not watched."""


@lru_cache(maxsize=4096)
def folders_to(output_path: str) -> Folders | None:
    """Return the folders between a job directory and its output; None if no watch covers the output.

    Absolute paths and paths deeper than MAX_DEPTH are not watched. An invalid path needs no folders.
    """
    names = components(output_path)
    if names is None:
        return ()
    if output_path.startswith("/") or len(names) > MAX_DEPTH + 1:
        return None
    return tuple("/".join(names[:depth]) for depth in range(1, len(names)))


def folders_to_watch(snapshot: JobSnapshot) -> Folders | None:
    """Return the folders to watch so that the absence of events proves this snapshot current.

    Returns None if no watch can prove it.
    """
    if snapshot.job.status is not Status.COMPLETED:
        return ()
    return folders_to(snapshot.job.output_path or "")


def size_of(batch: Mapping[str, Folders]) -> int:
    """Return the number of watches that a batch needs: job directories and their folders."""
    return len(batch) + sum(map(len, batch.values()))


def paths(job_id: str, folders: Folders) -> list[str]:
    """Return the paths of a job directory and its folders, relative to the root."""
    return [job_id, *(f"{job_id}/{folder}" for folder in folders)]
