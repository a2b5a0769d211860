"""A sorted list of jobs in pieces: a place is found, and others are moved, within one piece only."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import Final, TypeAlias

from jobsvc.domain.job import Job

Key: TypeAlias = tuple[int, str]
Step: TypeAlias = tuple[Key, Job | None, int]
"""Where one has come to, the job there (None: only the place), and what it cost to look, counted in jobs."""

PIECE: Final = 512
"""Jobs of a piece; at twice as many it is cut in two."""
SKIP: Final = 8
"""What it costs to pass a whole piece over, counted in jobs."""
STRIDE: Final = 512
"""What may be looked at in vain, counted in jobs, until there is a step."""

_ID: Final = attrgetter("id")
_FIRST: Final = -(1 << 63)


def key_of(job: Job) -> Key:
    """Order newest first by createdAt, then by id."""
    return -job.created_order, job.id


class _Piece:
    """Jobs that lie together, with what is asked of them in arrays: the jobs themselves lie far apart."""

    __slots__ = ("jobs", "last", "orders", "updates")

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.orders = array("q", [-job.created_order for job in jobs])
        """The first part of each job's key."""
        self.updates = array("q", [job.updated_order for job in jobs])
        """When each was updated."""
        self.last = max(self.updates, default=_FIRST)
        """No job of the piece was updated after this; it may be too high, never too low."""

    def place(self, key: Key) -> int:
        """Find where a key is, or would be."""
        order, job_id = key
        low = bisect_left(self.orders, order)
        if low == len(self.orders) or self.orders[low] != order:
            return low
        return bisect_left(self.jobs, job_id, low, bisect_right(self.orders, order, low), key=_ID)

    def holds(self, place: int, key: Key) -> bool:
        """Whether the job of this key is in its place."""
        orders = self.orders
        return place < len(orders) and orders[place] == key[0] and self.jobs[place].id == key[1]

    def updated(self, start: int, since: int) -> list[Job]:
        """Give the jobs, from a place on, that were updated since."""
        found = [place for place, updated in enumerate(self.updates[start:], start) if updated >= since]
        if not found:
            self.last = max(self.updates, default=_FIRST)
        return [self.jobs[place] for place in found]


class Ordered:
    """Jobs in the order of a listing."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = [_Piece([])]
        self._firsts: list[Key] = [(0, "")]
        """No key of a piece is below this, and none of the one before it is above; of the first, anything."""

    def __len__(self) -> int:
        return sum(len(piece.jobs) for piece in self._pieces)

    def __bool__(self) -> bool:
        return len(self._pieces) > 1 or bool(self._pieces[0].jobs)

    def add(self, job: Job) -> None:
        """Put a job in, in the place of one with the same key."""
        key, updated = key_of(job), job.updated_order
        at = self._piece_of(key)
        piece = self._pieces[at]
        place = piece.place(key)
        piece.last = max(piece.last, updated)
        if piece.holds(place, key):
            piece.jobs[place], piece.updates[place] = job, updated
            return
        piece.jobs.insert(place, job)
        piece.orders.insert(place, key[0])
        piece.updates.insert(place, updated)
        if len(piece.jobs) > 2 * PIECE:
            self._replace(at, [_Piece(piece.jobs[:PIECE]), _Piece(piece.jobs[PIECE:])])

    def discard(self, job: Job) -> None:
        """Take a job out, if it is in."""
        key = key_of(job)
        at = self._piece_of(key)
        piece = self._pieces[at]
        place = piece.place(key)
        if piece.holds(place, key):
            del piece.jobs[place], piece.orders[place], piece.updates[place]
            if not piece.jobs and len(self._pieces) > 1:
                self._replace(at, [])

    def after(self, key: Key | None, updated_since: int | None = None) -> Iterator[Step]:
        """Go through what comes after `key`, or only what was updated since (microseconds since the epoch).

        Then there are steps without a job too. Pieces in which nothing was are passed over for next to
        nothing: a page costs what it finds.
        """
        at, start = 0, 0
        if key is not None:
            at = self._piece_of(key)
            start = self._pieces[at].place(key)
            start += self._pieces[at].holds(start, key)
            if start == len(self._pieces[at].jobs):
                at, start = at + 1, 0  # a step must lead on, never back to where one stands
        if updated_since is not None:
            yield from self._updated(at, start, updated_since)
            return
        for piece in self._pieces[at:]:
            yield from ((key_of(job), job, 1) for job in piece.jobs[start:])
            start = 0

    def _updated(self, at: int, start: int, since: int) -> Iterator[Step]:
        cost = 0
        for piece in self._pieces[at:]:
            cost += SKIP
            if piece.last >= since:
                yield from ((key_of(job), job, 1) for job in piece.updated(start, since))
                cost += len(piece.jobs) - start
            if cost >= STRIDE:
                yield key_of(piece.jobs[-1]), None, cost
                cost = 0
            start = 0

    def _piece_of(self, key: Key) -> int:
        """Find the piece where a key belongs: the last one that begins at or before it."""
        return bisect_right(self._firsts, key, 1) - 1

    def _replace(self, at: int, pieces: list[_Piece]) -> None:
        self._pieces[at : at + 1] = pieces
        self._firsts[at : at + 1] = [key_of(piece.jobs[0]) for piece in pieces]
