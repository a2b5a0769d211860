"""Determine which folders of a job are watched along with its directory. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import starmap
from typing import Final, TypeAlias

from jobsvc.domain.job import Status
from jobsvc.domain.outputs import Output, OutputKind
from jobsvc.storage.jobs.output_states import OutputState
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import components

Folders: TypeAlias = tuple[str, ...]
"""Folders that are watched along with a job directory, relative to it."""

MAX_DEPTH: Final = 3
"""Maximum number of folders between a job directory and its output; a deeper output is not watched."""
MAX_FOLDERS: Final = 8
"""Maximum number of folders that are watched for a job with several outputs; with more, none is."""


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
    job = snapshot.job
    if job.status is not Status.COMPLETED:
        return ()
    if snapshot.packed_outputs is None:
        return folders_to(job.output_path or "")
    return _folders_to_all(tuple(starmap(_watched_path, zip(job.outputs, snapshot.states, strict=True))))


def _watched_path(output: Output, state: OutputState | None) -> str:
    """Return the path of a file whose folders are to be watched: of a directory, of any file in it."""
    return f"{output.path}/*" if state is not None and state.kind is OutputKind.DIRECTORY else output.path


@lru_cache(maxsize=1024)
def _folders_to_all(paths: tuple[str, ...]) -> Folders | None:
    folders: dict[str, None] = {}
    for path in paths:
        if (leading := folders_to(path)) is None:
            return None
        folders.update(dict.fromkeys(leading))
    return tuple(folders) if len(folders) <= MAX_FOLDERS else None


def size_of(batch: Mapping[str, Folders]) -> int:
    """Return the number of watches that a batch needs: job directories and their folders."""
    return len(batch) + sum(map(len, batch.values()))


def paths(job_id: str, folders: Folders) -> list[str]:
    """Return the paths of a job directory and its folders, relative to the root."""
    return [job_id, *(f"{job_id}/{folder}" for folder in folders)]
