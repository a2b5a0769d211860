"""What changed among an owner's jobs, in order, for any number of readers at any pace.

Of each job only the newest change counts, so a reader who falls behind is told less and not later, and costs
a number however far he is behind. Some thousand changes are kept; who is behind these looks at all jobs anew.
"""

from __future__ import annotations

from collections.abc import Collection
from secrets import token_hex
from typing import Final, NamedTuple

from jobsvc.domain.job import Status
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.storage.jobs.snapshot import JobSnapshot

MAX_CHANGES: Final = 16_384
"""Changes that are kept at most, about 150 bytes each; at least half of them are."""


class FeedOverrun(Exception):
    """The reader is behind the changes that are kept."""


class FeedEvent(NamedTuple):
    """One change as its reader is to see it."""

    position: int
    """Where the reader goes on who comes back: before what was left out of jobs still to be told of."""
    job_id: str
    snapshot: JobSnapshot | None
    """The job as it is now; None where it is, for this reader, no more."""


class ChangeFeed:
    """The changes of one owner's jobs, or of all; numbered from 0. Loop-owned."""

    def __init__(self, catalogue: Catalogue, owner: str | None, kept: int = MAX_CHANGES) -> None:
        """Follow the jobs of `owner`, None: of everyone."""
        self.owner: Final = owner
        self.epoch: Final = token_hex(6)
        """Tells this numbering from any other, of an earlier process too."""
        self._catalogue = catalogue
        self._max_changes = kept
        self._first = 0
        self._changes: list[tuple[str, Status | None]] = []
        self._newest: dict[str, int] = {}

    @property
    def end(self) -> int:
        """The place behind the newest change."""
        return self._first + len(self._changes)

    def add(self, job_id: str, before: JobSnapshot | None) -> None:
        """Take in a change of a job that was, or is now, one of these."""
        was = before.job.status if before is not None and self._is_owners(before) else None
        self._newest[job_id] = self.end
        self._changes.append((job_id, was))
        if len(self._changes) > self._max_changes:
            self._forget(self._max_changes // 2)

    def job(self, job_id: str) -> JobSnapshot | None:
        """Return a job as it is now, where it is one of these."""
        entry = self._catalogue.get(job_id)
        return entry.snapshot if entry is not None and self._is_owners(entry.snapshot) else None

    def change(self, place: int) -> tuple[str, Status | None, bool]:
        """Return the change at a place: which job, its status before, whether it is the newest. Missed."""
        if place < self._first:
            raise FeedOverrun
        job_id, was = self._changes[place - self._first]
        return job_id, was, self._newest[job_id] == place

    def holds(self, place: int) -> bool:
        """Whether all changes from a place on are kept."""
        return self._first <= place <= self.end

    def _is_owners(self, reading: JobSnapshot) -> bool:
        return self.owner is None or reading.job.owner == self.owner

    def _forget(self, count: int) -> None:
        for place, (job_id, _) in enumerate(self._changes[:count], self._first):
            if self._newest[job_id] == place:
                del self._newest[job_id]
        del self._changes[:count]
        self._first += count


class FeedReader:
    """One reader's way through a feed, who looks at jobs in some states only."""

    def __init__(self, feed: ChangeFeed, statuses: Collection[Status] = (), place: int | None = None) -> None:
        """Begin at `place`, or at the end; no `statuses` means all."""
        self._feed = feed
        self._statuses = frozenset(statuses or Status)
        self.position = feed.end if place is None else place
        self.coalesced = 0
        """Changes that were left out for a newer one of the same job."""
        self._left_out: dict[str, tuple[int, bool]] = {}
        """Of jobs whose changes were: the place of the first, and whether the job was ever in view there."""

    def next(self) -> FeedEvent | None:
        """Take the next change that concerns the reader; None where there is none yet. Missed."""
        while self.position < self._feed.end:
            job_id, was, newest = self._feed.change(self.position)
            first, seen = self._left_out.get(job_id, (self.position, False))
            # At any time, for who came back may know more than his place says.
            seen = seen or was in self._statuses
            self.position += 1
            if not newest:
                self.coalesced += 1
                self._left_out[job_id] = first, seen
                continue
            self._left_out.pop(job_id, None)
            reading = self._feed.job(job_id)
            if reading is not None and reading.job.status not in self._statuses:
                reading = None
            if reading is not None or seen:
                return FeedEvent(self._resume_at(), job_id, reading)
        return None

    def _resume_at(self) -> int:
        for place, _ in self._left_out.values():
            return place
        return self.position
