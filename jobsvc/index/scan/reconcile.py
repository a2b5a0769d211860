"""Compares a listing of the root with what is known: pure, but for the rests it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from jobsvc.index.catalogue.entries import Entry
from jobsvc.storage.jobs.batch_read import ReadRequest
from jobsvc.storage.jobs.root_listing import RootScan
from jobsvc.storage.threads.gil_yield import chunks_yielding_gil

NAMES_PER_CHUNK: Final = 10_000
"""Names between two rests: a millisecond or two."""


class Comparison(NamedTuple):
    """What is to be looked at so that the catalogue equals the disk, most urgent first."""

    names: set[str]
    """All that is listed."""
    new: list[str]
    """Names that are not known."""
    missing_from_listing: list[str]
    """Known ones that the listing lacks: looked at, not believed gone, since a listing is not a snapshot."""
    known: list[str]
    """The other known ones: jobs under way, then finished ones; none where names alone were compared."""


def compare(listed: Sequence[str], known: Mapping[str, Entry], *, names_alone: bool = False) -> Comparison:
    """Compare a listing with what is known; in a thread, while the loop goes on changing that."""
    names = set(listed)
    new: list[str] = []
    under_way: list[str] = []
    finished: list[str] = []
    for job_id in chain.from_iterable(chunks_yielding_gil(listed, NAMES_PER_CHUNK)):
        if (entry := known.get(job_id)) is None:
            new.append(job_id)
        else:
            (finished if entry.snapshot.job.status.final else under_way).append(job_id)
    lacking = [
        job_id
        for part in chunks_yielding_gil(list(known), NAMES_PER_CHUNK)
        for job_id in part
        if job_id not in names
    ]
    return Comparison(names, new, lacking, [] if names_alone else under_way + finished)


class NameChanges(NamedTuple):
    """What a listing of names tells of jobs that came, went or were replaced."""

    new: list[str]
    """Names that are not known."""
    missing: list[str]
    """Known ones that are not listed."""
    replaced: list[str]
    """Known ones with another inode number than when they were listed last."""


def compare_names(
    inodes: Mapping[str, int], known: Mapping[str, Entry], without_job: Mapping[str, int]
) -> NameChanges:
    """Compare a listing with what is known; in a thread, while the loop goes on changing that.

    `without_job` are names, with their inode numbers, in which no job was found: they are not new again.
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
    """Record the inode numbers of a listing for jobs that were first read after it; in a thread."""
    for job_id, inode in chain.from_iterable(
        chunks_yielding_gil(zip(scan.ids, scan.inodes, strict=False), NAMES_PER_CHUNK)
    ):
        if (entry := known.get(job_id)) is not None and entry.inode is None:
            entry.inode = inode


def batches(job_ids: Sequence[str], known: Mapping[str, Entry], size: int) -> Iterator[Sequence[ReadRequest]]:
    """Cut into pieces of at most `size`, each with what is known by the time that its turn comes."""
    for start in range(0, len(job_ids), size):
        yield [
            (job_id, None if (entry := known.get(job_id)) is None else entry.snapshot)
            for job_id in job_ids[start : start + size]
        ]
