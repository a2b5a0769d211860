"""Digests that were requested and are not under way: owners in turn, and each one's in the order they came.

Bounded, since each costs the reading of a whole output: one owner's many wait behind each other, not before
those of the next owner. Pure.
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from jobsvc.domain.job import Job
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.output_hash import HashProgress

MAX_WAITING_PER_OWNER: Final = 256
"""The most wishes of one owner that wait."""


class DigestRequest(NamedTuple):
    """A version of a job's output that somebody would like the digest of."""

    job: Job
    version: FileVersion
    due: float
    """Monotonic seconds before which it must not be begun."""
    progress: HashProgress | None = None
    """How far it came in earlier turns."""


class DigestQueue:
    """The lines of all owners."""

    def __init__(self, most: int = MAX_WAITING_PER_OWNER) -> None:
        """Let at most `most` wishes of an owner wait."""
        self._max_per_owner = most
        self._by_owner: dict[str, dict[str, DigestRequest]] = {}
        """By owner, whose turn is next first, his wishes by job."""

    def __len__(self) -> int:
        return sum(map(len, self._by_owner.values()))

    @property
    def due(self) -> float:
        """When the first of all may be begun; infinite where there is none."""
        return min((wish.due for line in self._by_owner.values() for wish in line.values()), default=inf)

    def add(self, wish: DigestRequest) -> bool:
        """Have a wish wait, in place of one for another version; False where its owner has too many."""
        line = self._by_owner.get(wish.job.owner, {})
        waiting = line.get(wish.job.id)
        if waiting is None and len(line) >= self._max_per_owner:
            return False
        if waiting is None or waiting.version != wish.version:
            line[wish.job.id] = wish
        self._by_owner[wish.job.owner] = line
        return True

    def put_back(self, wish: DigestRequest) -> None:
        """Have a wish whose turn is over wait behind its owner's others, unless another version does."""
        self._by_owner.setdefault(wish.job.owner, {}).setdefault(wish.job.id, wish)

    def take(self, now: float, owner: str | None = None) -> DigestRequest | None:
        """Take the next wish that is due: one of `owner`, whose turn is not over yet, or the next owner's."""
        owners = list(self._by_owner)
        if owner in self._by_owner:
            owners.insert(0, owner)
        for each in owners:
            line = self._by_owner[each]
            for wish in line.values():
                if wish.due <= now:
                    del line[wish.job.id]
                    del self._by_owner[each]
                    if line:
                        self._by_owner[each] = line  # behind the others
                    return wish
        return None
