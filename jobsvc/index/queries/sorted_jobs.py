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
"""Cost without a match, in jobs, after which a step is returned although nothing matched."""

_NEVER: Final = -(1 << 63)


def key_of(job: Job) -> Key:
    """Return the sort key: newest createdAt first, then by id."""
    return -job.created_order, job.id


class _Chunk:
    """Consecutive jobs; the searched fields are in parallel lists, since the jobs are scattered in memory."""

    __slots__ = ("ids", "max_updated", "orders", "updates")

    def __init__(self, ids: list[str], orders: array[int], updates: array[int]) -> None:
        self.ids = ids
        self.orders = orders
        """The first part of each job's key; the second part is the id."""
        self.updates = updates
        """When each job was updated."""
        self.max_updated = max(updates, default=_NEVER)
        """Upper bound of the update times; can be too high, never too low."""

    def __len__(self) -> int:
        return len(self.ids)

    def key(self, index: int) -> Key:
        """Return the key of the job at an index."""
        return self.orders[index], self.ids[index]

    def part(self, start: int, stop: int | None) -> _Chunk:
        """Return a copy of a part of the chunk."""
        cut = slice(start, stop)
        return _Chunk(self.ids[cut], self.orders[cut], self.updates[cut])

    def index_of(self, key: Key) -> int:
        """Return the index where a key is, or would be inserted."""
        order, job_id = key
        low = bisect_left(self.orders, order)
        if low == len(self.orders) or self.orders[low] != order:
            return low
        return bisect_left(self.ids, job_id, low, bisect_right(self.orders, order, low))

    def has_key(self, index: int, key: Key) -> bool:
        """Return whether the job at an index has this key."""
        return index < len(self.ids) and self.ids[index] == key[1] and self.orders[index] == key[0]

    def updated(self, start: int, since: int) -> list[int]:
        """Return the indexes, from `start` on, of the jobs that were updated at or after `since`."""
        indexes = [index for index, updated in enumerate(self.updates[start:], start) if updated >= since]
        if not indexes:
            self.max_updated = max(self.updates, default=_NEVER)
        return indexes


class SortedJobs:
    """Jobs in list order, newest first."""

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = [_Chunk([], array("q"), array("q"))]
        self._firsts: list[Key] = [(0, "")]
        """For each chunk: not above its keys and not below the previous chunk's keys; the first is unused."""

    def __len__(self) -> int:
        return sum(len(chunk) for chunk in self._chunks)

    def __bool__(self) -> bool:
        return len(self._chunks) > 1 or bool(self._chunks[0])

    def add(self, key: Key, updated: int) -> None:
        """Add a job; replaces one with the same key."""
        chunk_index = self._chunk_of(key)
        chunk = self._chunks[chunk_index]
        index = chunk.index_of(key)
        chunk.max_updated = max(chunk.max_updated, updated)
        if chunk.has_key(index, key):
            chunk.updates[index] = updated
            return
        chunk.ids.insert(index, key[1])
        chunk.orders.insert(index, key[0])
        chunk.updates.insert(index, updated)
        if len(chunk.ids) > 2 * CHUNK_JOBS:
            self._replace(chunk_index, [chunk.part(0, CHUNK_JOBS), chunk.part(CHUNK_JOBS, None)])

    def discard(self, key: Key) -> None:
        """Remove a job, if it is present."""
        chunk_index = self._chunk_of(key)
        chunk = self._chunks[chunk_index]
        index = chunk.index_of(key)
        if chunk.has_key(index, key):
            del chunk.ids[index], chunk.orders[index], chunk.updates[index]
            if not chunk and len(self._chunks) > 1:
                self._replace(chunk_index, [])

    def after(self, key: Key | None) -> Iterator[Key]:
        """Return an iterator over the keys after `key`."""
        chunk_index, start = self._position_after(key)
        keys = chain.from_iterable(
            zip(chunk.orders, chunk.ids, strict=True) for chunk in self._chunks[chunk_index:]
        )
        return islice(keys, start, None)

    def updated_after(self, key: Key | None, since: int) -> Iterator[Step]:
        """Iterate over the jobs after `key` that were updated at or after `since` (microseconds, epoch).

        Also yields steps without a matching job, so that the caller can stop. Chunks without a match are
        skipped at SKIP_COST: the cost of a page depends on what it finds.
        """
        chunk_index, start = self._position_after(key)
        cost = 0
        for chunk in self._chunks[chunk_index:]:
            cost += SKIP_COST
            if chunk.max_updated >= since:
                yield from ((chunk.key(index), True, 1) for index in chunk.updated(start, since))
                cost += len(chunk) - start
            if cost >= MAX_STEP_COST:
                yield chunk.key(-1), False, cost
                cost = 0
            start = 0

    def _position_after(self, key: Key | None) -> tuple[int, int]:
        """Return the chunk, and the index in it, of the first job after a key."""
        if key is None:
            return 0, 0
        chunk_index = self._chunk_of(key)
        start = self._chunks[chunk_index].index_of(key)
        start += self._chunks[chunk_index].has_key(start, key)
        if start == len(self._chunks[chunk_index]):
            return chunk_index + 1, 0  # a step must always be after the given key
        return chunk_index, start

    def _chunk_of(self, key: Key) -> int:
        """Return the index of the chunk for a key: the last one that starts at or before it."""
        return bisect_right(self._firsts, key, 1) - 1

    def _replace(self, chunk_index: int, chunks: list[_Chunk]) -> None:
        self._chunks[chunk_index : chunk_index + 1] = chunks
        self._firsts[chunk_index : chunk_index + 1] = [chunk.key(0) for chunk in chunks]
