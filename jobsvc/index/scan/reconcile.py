"""Compares a listing of the root with what is known: pure, but for the rests it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from jobsvc.index.catalogue.entries import Entry
from jobsvc.storage.jobs.batch_read import Wanted
from jobsvc.storage.jobs.root_listing import RootScan
from jobsvc.storage.threads.gil_yield import in_parts

COMPARED: Final = 10_000
"""Names between two rests: a millisecond or two."""


class Compared(NamedTuple):
    """What is to be looked at so that the catalogue equals the disk, most urgent first."""

    names: set[str]
    """All that is listed."""
    new: list[str]
    """Names that are not known."""
    lacking: list[str]
    """Known ones that the listing lacks: looked at, not believed gone, since a listing is not a snapshot."""
    rest: list[str]
    """The other known ones: jobs under way, then finished ones; none where names alone were compared."""


def compare(listed: Sequence[str], known: Mapping[str, Entry], *, names_alone: bool = False) -> Compared:
    """Compare a listing with what is known; in a thread, while the loop goes on changing that."""
    names = set(listed)
    new: list[str] = []
    under_way: list[str] = []
    finished: list[str] = []
    for job_id in chain.from_iterable(in_parts(listed, COMPARED)):
        if (entry := known.get(job_id)) is None:
            new.append(job_id)
        else:
            (finished if entry.reading.job.status.final else under_way).append(job_id)
    lacking = [job_id for part in in_parts(list(known), COMPARED) for job_id in part if job_id not in names]
    return Compared(names, new, lacking, [] if names_alone else under_way + finished)


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
    for job_id, inode in chain.from_iterable(in_parts(inodes.items(), COMPARED)):
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
    missing = [job_id for part in in_parts(list(known), COMPARED) for job_id in part if job_id not in inodes]
    return NameChanges(new, missing, replaced)


def note_inodes(scan: RootScan, known: Mapping[str, Entry]) -> None:
    """Record the inode numbers of a listing for jobs that were first read after it; in a thread."""
    for job_id, inode in chain.from_iterable(in_parts(zip(scan.ids, scan.inodes, strict=False), COMPARED)):
        if (entry := known.get(job_id)) is not None and entry.inode is None:
            entry.inode = inode


def batches(job_ids: Sequence[str], known: Mapping[str, Entry], size: int) -> Iterator[Sequence[Wanted]]:
    """Cut into pieces of at most `size`, each with what is known by the time that its turn comes."""
    for start in range(0, len(job_ids), size):
        yield [
            (job_id, None if (entry := known.get(job_id)) is None else entry.reading)
            for job_id in job_ids[start : start + size]
        ]
