"""Compares a listing of the root with what is known: pure, but for the rests it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from jobsvc.index.catalogue import Entry
from jobsvc.index.sweep import Wanted
from jobsvc.storage.rests import in_parts

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


def batches(job_ids: Sequence[str], known: Mapping[str, Entry], size: int) -> Iterator[Sequence[Wanted]]:
    """Cut into pieces of at most `size`, each with what is known by the time that its turn comes."""
    for start in range(0, len(job_ids), size):
        yield [
            (job_id, None if (entry := known.get(job_id)) is None else entry.reading)
            for job_id in job_ids[start : start + size]
        ]
