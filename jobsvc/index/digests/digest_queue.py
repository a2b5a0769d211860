"""Digests that were requested and are not under way: owners in turn, and each one's in the order they came.

Bounded, since each costs the reading of a whole output: one owner's many wait behind each other, not before
those of the next owner. Pure.
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from jobsvc.domain.job import Job
from jobsvc.storage.files.file_version import Identity
from jobsvc.storage.jobs.output_hash import HashProgress

WAITING: Final = 256
"""The most wishes of one owner that wait."""


class Wish(NamedTuple):
    """A version of a job's output that somebody would like the digest of."""

    job: Job
    identity: Identity
    due: float
    """Monotonic seconds before which it must not be begun."""
    progress: HashProgress | None = None
    """How far it came in earlier turns."""


class Wishes:
    """The lines of all owners."""

    def __init__(self, most: int = WAITING) -> None:
        """Let at most `most` wishes of an owner wait."""
        self._most = most
        self._lines: dict[str, dict[str, Wish]] = {}
        """By owner, whose turn is next first, his wishes by job."""

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    @property
    def due(self) -> float:
        """When the first of all may be begun; infinite where there is none."""
        return min((wish.due for line in self._lines.values() for wish in line.values()), default=inf)

    def add(self, wish: Wish) -> bool:
        """Have a wish wait, in place of one for another version; False where its owner has too many."""
        line = self._lines.get(wish.job.owner, {})
        waiting = line.get(wish.job.id)
        if waiting is None and len(line) >= self._most:
            return False
        if waiting is None or waiting.identity != wish.identity:
            line[wish.job.id] = wish
        self._lines[wish.job.owner] = line
        return True

    def put_back(self, wish: Wish) -> None:
        """Have a wish whose turn is over wait behind its owner's others, unless another version does."""
        self._lines.setdefault(wish.job.owner, {}).setdefault(wish.job.id, wish)

    def take(self, now: float, owner: str | None = None) -> Wish | None:
        """Take the next wish that is due: one of `owner`, whose turn is not over yet, or the next owner's."""
        owners = list(self._lines)
        if owner in self._lines:
            owners.insert(0, owner)
        for each in owners:
            line = self._lines[each]
            for wish in line.values():
                if wish.due <= now:
                    del line[wish.job.id]
                    del self._lines[each]
                    if line:
                        self._lines[each] = line  # behind the others
                    return wish
        return None
