"""A sorted list of jobs in pieces: a place is found, and others are moved, within one piece only."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final, TypeAlias

from jobsvc.domain.job import Job

Key: TypeAlias = tuple[int, str]

PIECE: Final = 512
"""Jobs of a piece; at twice as many it is cut in two."""


def key_of(job: Job) -> Key:
    """Order newest first by createdAt, then by id."""
    return -job.created_order, job.id


class _Piece:
    """Jobs that lie together, and a bound on when the last of them was updated."""

    __slots__ = ("jobs", "orders", "updated")

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.orders = array("q", [-job.created_order for job in jobs])
        """The first part of each job's key, to be searched without calling anything."""
        self.updated = max((job.updated_order for job in jobs), default=0)
        """No job of the piece was updated after this; it may be too high, never too low."""

    def place(self, key: Key) -> int:
        """Find where a key is, or would be."""
        low, high = bisect_left(self.orders, key[0]), bisect_right(self.orders, key[0])
        return bisect_left(self.jobs, key[1], low, high, key=_id)


class Ordered:
    """Jobs in the order of a listing."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = [_Piece([])]
        self._firsts: list[int] = [0]
        """The first part of each piece's first key; of the first piece, which begins it all, anything."""

    def __len__(self) -> int:
        return sum(len(piece.jobs) for piece in self._pieces)

    def __bool__(self) -> bool:
        return len(self._pieces) > 1 or bool(self._pieces[0].jobs)

    def add(self, job: Job) -> None:
        """Put a job in."""
        at = self._piece_of(key_of(job))
        piece = self._pieces[at]
        place = piece.place(key_of(job))
        piece.jobs.insert(place, job)
        piece.orders.insert(place, -job.created_order)
        piece.updated = max(piece.updated, job.updated_order)
        if len(piece.jobs) > 2 * PIECE:
            self._replace(at, [_Piece(piece.jobs[:PIECE]), _Piece(piece.jobs[PIECE:])])

    def discard(self, job: Job) -> None:
        """Take a job out, if it is in."""
        at = self._piece_of(key_of(job))
        piece = self._pieces[at]
        place = piece.place(key_of(job))
        if place < len(piece.jobs) and piece.jobs[place].id == job.id:
            del piece.jobs[place]
            del piece.orders[place]
            if not piece.jobs and len(self._pieces) > 1:
                self._replace(at, [])
            elif place == 0 and piece.jobs:
                self._firsts[at] = piece.orders[0]

    def after(self, key: Key | None, updated_since: int | None = None) -> Iterator[tuple[Key, Job | None]]:
        """Go through what comes after `key`: each job with its key, or None for one not updated since.

        Where a whole piece was not, its last key stands for all of it: a page costs what it finds.
        """
        at = 0 if key is None else self._piece_of(key)
        for number in range(at, len(self._pieces)):
            piece = self._pieces[number]
            start = 0
            if key is not None and number == at:
                start = piece.place(key)
                start += start < len(piece.jobs) and key_of(piece.jobs[start]) == key
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
        low, high = bisect_left(self._firsts, key[0], 1), bisect_right(self._firsts, key[0], 1)
        return bisect_right(self._pieces, key[1], low, high, key=_first_id) - 1

    def _replace(self, at: int, pieces: list[_Piece]) -> None:
        self._pieces[at : at + 1] = pieces
        self._firsts[at : at + 1] = [piece.orders[0] for piece in pieces]


def _id(job: Job) -> str:
    return job.id


def _first_id(piece: _Piece) -> str:
    return piece.jobs[0].id
