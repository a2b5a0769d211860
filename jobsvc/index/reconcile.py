"""Compares a listing of the root with what is known: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from jobsvc.index.catalogue import Entry
from jobsvc.index.sweep import Wanted


def wanted(listed: Sequence[str], known: Mapping[str, Entry]) -> list[Wanted]:
    """Say what is to be looked at so that the catalogue equals the disk, most urgent first.

    New names, then known ones that the listing lacks (looked at, not believed gone: a listing is not a
    snapshot), then jobs under way, then finished ones.
    """
    names = set(listed)
    new: list[Wanted] = [(job_id, None) for job_id in listed if job_id not in known]
    lacking: list[Wanted] = [
        (job_id, entry.reading) for job_id, entry in known.items() if job_id not in names
    ]
    under_way: list[Wanted] = []
    finished: list[Wanted] = []
    for job_id in listed:
        if (entry := known.get(job_id)) is not None:
            (finished if entry.reading.job.status.final else under_way).append((job_id, entry.reading))
    return new + lacking + under_way + finished


def batches(everything: Sequence[Wanted], size: int) -> Iterator[Sequence[Wanted]]:
    """Cut into pieces of at most `size`."""
    for start in range(0, len(everything), size):
        yield everything[start : start + size]
