"""Sorted sequence of jobs, stored in chunks: an insertion searches and shifts within one chunk only."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final, TypeAlias

from jobsvc.domain.job import Job

Key: TypeAlias = tuple[int, str]
Step: TypeAlias = tuple[Key, bool, int]
"""Key reached, whether it is a matching job, and the cost of getting there, in jobs."""

CHUNK_JOBS: Final = 512
"""Jobs of a chunk; one with more than twice as many is split in two."""
SKIP_COST: Final = 8
"""Cost of skipping a whole chunk, in jobs."""
MAX_STEP_COST: Final = 512
"""Cost without a match, in jobs, after which a step is returned all the same."""

_FIRST: Final = -(1 << 63)


def key_of(job: Job) -> Key:
    """Return the sort key: newest createdAt first, then by id."""
    return -job.created_order, job.id


class _Chunk:
    """Consecutive jobs; the searched fields are in parallel lists, since the jobs are scattered in memory."""

    __slots__ = ("ids", "last", "orders", "updates")

    def __init__(self, ids: list[str], orders: array[int], updates: array[int]) -> None:
        self.ids = ids
        self.orders = orders
        """The first part of each job's key; the second part is the id."""
        self.updates = updates
        """When each job was updated."""
        self.last = max(updates, default=_FIRST)
        """Upper bound of the update times; can be too high, never too low."""

    def __len__(self) -> int:
        return len(self.ids)

    def key(self, place: int) -> Key:
        """Return the key of the job at an index."""
        return self.orders[place], self.ids[place]

    def part(self, start: int, stop: int | None) -> _Chunk:
        """Return a copy of a part of the chunk."""
        cut = slice(start, stop)
        return _Chunk(self.ids[cut], self.orders[cut], self.updates[cut])

    def place(self, key: Key) -> int:
        """Return the index where a key is, or would be inserted."""
        order, job_id = key
        low = bisect_left(self.orders, order)
        if low == len(self.orders) or self.orders[low] != order:
            return low
        return bisect_left(self.ids, job_id, low, bisect_right(self.orders, order, low))

    def holds(self, place: int, key: Key) -> bool:
        """Return whether the job at an index has this key."""
        return place < len(self.ids) and self.ids[place] == key[1] and self.orders[place] == key[0]

    def updated(self, start: int, since: int) -> list[int]:
        """Return the indexes, from `start` on, of the jobs that were updated at or after `since`."""
        found = [place for place, updated in enumerate(self.updates[start:], start) if updated >= since]
        if not found:
            self.last = max(self.updates, default=_FIRST)
        return found


class SortedJobs:
    """Jobs in list order, newest first."""

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = [_Chunk([], array("q"), array("q"))]
        self._firsts: list[Key] = [(0, "")]
        """For each chunk: not above its keys and not below the previous chunk's keys; the first is unused."""

    def __len__(self) -> int:
        return sum(len(piece) for piece in self._chunks)

    def __bool__(self) -> bool:
        return len(self._chunks) > 1 or bool(self._chunks[0])

    def add(self, key: Key, updated: int) -> None:
        """Add a job; replaces one with the same key."""
        at = self._chunk_of(key)
        piece = self._chunks[at]
        place = piece.place(key)
        piece.last = max(piece.last, updated)
        if piece.holds(place, key):
            piece.updates[place] = updated
            return
        piece.ids.insert(place, key[1])
        piece.orders.insert(place, key[0])
        piece.updates.insert(place, updated)
        if len(piece.ids) > 2 * CHUNK_JOBS:
            self._replace(at, [piece.part(0, CHUNK_JOBS), piece.part(CHUNK_JOBS, None)])

    def discard(self, key: Key) -> None:
        """Remove a job, if it is present."""
        at = self._chunk_of(key)
        piece = self._chunks[at]
        place = piece.place(key)
        if piece.holds(place, key):
            del piece.ids[place], piece.orders[place], piece.updates[place]
            if not piece and len(self._chunks) > 1:
                self._replace(at, [])

    def after(self, key: Key | None) -> Iterator[Key]:
        """Return an iterator over the keys after `key`."""
        at, start = self._place_after(key)
        keys = chain.from_iterable(zip(piece.orders, piece.ids, strict=True) for piece in self._chunks[at:])
        return islice(keys, start, None)

    def updated_after(self, key: Key | None, since: int) -> Iterator[Step]:
        """Iterate over the jobs after `key` that were updated at or after `since` (microseconds, epoch).

        Also yields steps without a matching job, so that the caller can stop. Chunks without a match are
        skipped at SKIP_COST: the cost of a page depends on what it finds.
        """
        at, start = self._place_after(key)
        cost = 0
        for piece in self._chunks[at:]:
            cost += SKIP_COST
            if piece.last >= since:
                yield from ((piece.key(place), True, 1) for place in piece.updated(start, since))
                cost += len(piece) - start
            if cost >= MAX_STEP_COST:
                yield piece.key(-1), False, cost
                cost = 0
            start = 0

    def _place_after(self, key: Key | None) -> tuple[int, int]:
        """Return the chunk, and the index in it, of the first job after a key."""
        if key is None:
            return 0, 0
        at = self._chunk_of(key)
        start = self._chunks[at].place(key)
        start += self._chunks[at].holds(start, key)
        if start == len(self._chunks[at]):
            return at + 1, 0  # a step must always be after the given key
        return at, start

    def _chunk_of(self, key: Key) -> int:
        """Return the index of the chunk for a key: the last one that starts at or before it."""
        return bisect_right(self._firsts, key, 1) - 1

    def _replace(self, at: int, pieces: list[_Chunk]) -> None:
        self._chunks[at : at + 1] = pieces
        self._firsts[at : at + 1] = [piece.key(0) for piece in pieces]
