"""Compare a listing of the root with the catalogue. No I/O. Releases the GIL regularly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from jobsvc.index.catalogue.entries import Entry
from jobsvc.storage.jobs.root_listing import RootScan
from jobsvc.storage.threads.gil_yield import chunks_yielding_gil

NAMES_PER_CHUNK: Final = 10_000
"""Names compared between two releases of the GIL: 1 to 2 ms."""


class Comparison(NamedTuple):
    """The job ids to read so that the catalogue matches the disk; fields in order of urgency."""

    names: set[str]
    """All names listed."""
    new: list[str]
    """Listed names that are not in the catalogue."""
    missing_from_listing: list[str]
    """Known jobs that are not listed: read, and not removed at once, since a listing is not atomic."""
    known: list[str]
    """The other known jobs, unfinished ones first; empty if only names were compared."""


def compare(listed: Sequence[str], known: Mapping[str, Entry], *, names_only: bool = False) -> Comparison:
    """Compare the `listed` names with the `known` jobs.

    Runs in a thread while the event loop changes `known`. With `names_only` the result's `known` is empty.
    """
    names = set(listed)
    new: list[str] = []
    unfinished: list[str] = []
    finished: list[str] = []
    for job_id in chain.from_iterable(chunks_yielding_gil(listed, NAMES_PER_CHUNK)):
        if (entry := known.get(job_id)) is None:
            new.append(job_id)
        else:
            (finished if entry.snapshot.job.status.final else unfinished).append(job_id)
    missing = [
        job_id
        for part in chunks_yielding_gil(list(known), NAMES_PER_CHUNK)
        for job_id in part
        if job_id not in names
    ]
    return Comparison(names, new, missing, [] if names_only else unfinished + finished)


class NameChanges(NamedTuple):
    """The jobs that were added, removed or replaced, according to a listing."""

    new: list[str]
    """Listed names that are not in the catalogue."""
    missing: list[str]
    """Known jobs that are not listed."""
    replaced: list[str]
    """Known jobs whose inode number differs from that of the last listing."""


def compare_names(
    inodes: Mapping[str, int], known: Mapping[str, Entry], without_job: Mapping[str, int]
) -> NameChanges:
    """Compare the listed names and inode numbers with the `known` jobs.

    Runs in a thread while the event loop changes `known`. `without_job` are names, with their inode numbers,
    for which no job was found: these are not reported as new again. Sets Entry.inode where it is None.
    """
    new: list[str] = []
    replaced: list[str] = []
    count = 0
    for job_id, inode in chain.from_iterable(chunks_yielding_gil(inodes.items(), NAMES_PER_CHUNK)):
        if (entry := known.get(job_id)) is None:
            if without_job.get(job_id) != inode:
                new.append(job_id)
            continue
        count += 1
        if entry.inode != inode:
            if entry.inode is None:
                entry.inode = inode
            else:
                replaced.append(job_id)
    if count == len(known):
        return NameChanges(new, [], replaced)
    missing = [
        job_id
        for part in chunks_yielding_gil(list(known), NAMES_PER_CHUNK)
        for job_id in part
        if job_id not in inodes
    ]
    return NameChanges(new, missing, replaced)


def note_inodes(scan: RootScan, known: Mapping[str, Entry]) -> None:
    """Set Entry.inode from a listing for jobs that have none, those first read after it. Runs in a thread."""
    for job_id, inode in chain.from_iterable(
        chunks_yielding_gil(zip(scan.ids, scan.inodes, strict=False), NAMES_PER_CHUNK)
    ):
        if (entry := known.get(job_id)) is not None and entry.inode is None:
            entry.inode = inode
