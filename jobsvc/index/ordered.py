"""A sorted list in pieces: places to insert are found, and items moved, in a piece and not in all of it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final, TypeAlias

from jobsvc.domain.job import Job

Key: TypeAlias = tuple[int, str]

PIECE: Final = 512
"""Items of a piece; at twice as many it is cut in two."""


def key_of(job: Job) -> Key:
    """Order newest first by createdAt, then by id."""
    return -job.created_order, job.id


class _Piece:
    """Jobs that lie together, and a bound on when the last of them was updated."""

    __slots__ = ("jobs", "updated")

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.updated = max((job.updated_order for job in jobs), default=0)
        """No job of the piece was updated after this; it may be too high, never too low."""


class Ordered:
    """Jobs in the order of a listing. A job is put in and taken out as the same object."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = [_Piece([])]

    def __len__(self) -> int:
        return sum(len(piece.jobs) for piece in self._pieces)

    def add(self, job: Job) -> None:
        """Put a job in."""
        at = self._piece_of(key_of(job))
        piece = self._pieces[at]
        insort(piece.jobs, job, key=key_of)
        piece.updated = max(piece.updated, job.updated_order)
        if len(piece.jobs) > 2 * PIECE:
            self._pieces[at : at + 1] = _Piece(piece.jobs[:PIECE]), _Piece(piece.jobs[PIECE:])

    def discard(self, job: Job) -> None:
        """Take a job out, if it is in."""
        at = self._piece_of(key_of(job))
        jobs = self._pieces[at].jobs
        place = bisect_left(jobs, key_of(job), key=key_of)
        if place < len(jobs) and jobs[place].id == job.id:
            del jobs[place]
            if not jobs and len(self._pieces) > 1:
                del self._pieces[at]

    def after(self, key: Key | None, updated_since: int | None = None) -> Iterator[tuple[Key, Job | None]]:
        """Go through what comes after `key`: each job with its key, or None for one not updated since.

        Where a whole piece was not, its last key stands for all of it: a page costs what it finds.
        """
        at = 0 if key is None else self._piece_of(key)
        for number in range(at, len(self._pieces)):
            piece = self._pieces[number]
            start = bisect_right(piece.jobs, key, key=key_of) if key is not None and number == at else 0
            if updated_since is None:
                yield from ((key_of(job), job) for job in piece.jobs[start:])
            elif piece.jobs and piece.updated < updated_since:
                yield key_of(piece.jobs[-1]), None
            else:
                piece.updated = max((job.updated_order for job in piece.jobs), default=0)
                for job in piece.jobs[start:]:
                    yield key_of(job), job if job.updated_order >= updated_since else None

    def _piece_of(self, key: Key) -> int:
        """Find the piece where a key belongs: the last one that begins at or before it."""
        low, high = 0, len(self._pieces) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if key_of(self._pieces[middle].jobs[0]) <= key:
                low = middle
            else:
                high = middle - 1
        return low
