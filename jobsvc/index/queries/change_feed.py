"""Record the changes of an owner's jobs, in order, for any number of readers.

Changes are coalesced: a slow reader gets only the newest change of each job, and its whole state is one
position. 8,192 to 16,384 changes are kept; a reader further behind gets FeedOverrun and has to list all jobs
again.
"""

from __future__ import annotations

from collections.abc import Collection
from secrets import token_hex
from typing import Final, NamedTuple

from jobsvc.domain.job import Status
from jobsvc.index.catalogue.change_journal import ChangeJournal
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.storage.jobs.snapshot import JobSnapshot

MAX_CHANGES: Final = 16_384
"""Maximum number of kept changes, about 150 bytes each; above it, the older half is dropped."""


class FeedOverrun(Exception):
    """The reader's position is older than the oldest kept change."""


class FeedMark(NamedTuple):
    """Up to where a client has read a feed; `seen_until` also means something to other processes."""

    epoch: str
    position: int
    seen_until: float
    """The client has every change on storage before this time (seconds since the epoch); 0 if unknown."""


class FeedEvent(NamedTuple):
    """One change, as one reader sees it."""

    job_id: str
    snapshot: JobSnapshot | None
    """The job's current snapshot; None if it was deleted or no longer matches the reader's filter."""


class ChangeFeed:
    """The changes of one owner's jobs, or of all jobs, numbered from 0. Event loop only."""

    def __init__(
        self,
        catalogue: Catalogue,
        journal: ChangeJournal,
        owner: str | None,
        max_changes: int = MAX_CHANGES,
    ) -> None:
        """Create an empty feed of the jobs of `owner` (None: all owners)."""
        self.owner: Final = owner
        self.epoch: Final = token_hex(6)
        """Random id of this numbering; differs from any other feed's, also of an earlier process."""
        self._catalogue = catalogue
        self.journal: Final = journal
        self._max_changes = max_changes
        self._first = 0
        self._changes: list[tuple[str, Status | None, float]] = []
        """Job id, its status before the change, and the journal's `seen_until` before the change."""
        self._newest: dict[str, int] = {}

    @property
    def end(self) -> int:
        """The position after the newest change."""
        return self._first + len(self._changes)

    def add(self, job_id: str, before: JobSnapshot | None) -> None:
        """Append a change of a job that belongs, or belonged before it, to this feed."""
        status_before = before.job.status if before is not None and self._is_owners(before) else None
        self._newest[job_id] = self.end
        self._changes.append((job_id, status_before, self.journal.seen_until))
        if len(self._changes) > self._max_changes:
            self._forget(self._max_changes // 2)

    def job(self, job_id: str) -> JobSnapshot | None:
        """Return a job's current snapshot; None if it does not exist or does not belong to this feed."""
        entry = self._catalogue.get(job_id)
        return entry.snapshot if entry is not None and self._is_owners(entry.snapshot) else None

    def change(self, position: int) -> tuple[str, Status | None, bool]:
        """Return the change at a position: job id, status before it, whether it is the job's newest.

        The status is None if the job did not belong to this feed before. Raises FeedOverrun.
        """
        if position < self._first:
            raise FeedOverrun
        job_id, status_before, _ = self._changes[position - self._first]
        return job_id, status_before, self._newest[job_id] == position

    def mark(self, position: int) -> FeedMark:
        """Return the mark of a client that has all changes before a position."""
        if position >= self.end:
            seen_until = self.journal.seen_until
        elif position >= self._first:
            seen_until = self._changes[position - self._first][2]
        else:
            seen_until = 0.0
        return FeedMark(self.epoch, position, seen_until)

    def has_all_from(self, position: int) -> bool:
        """Return whether all changes from a position on are kept."""
        return self._first <= position <= self.end

    def _is_owners(self, snapshot: JobSnapshot) -> bool:
        return self.owner is None or snapshot.job.owner == self.owner

    def _forget(self, count: int) -> None:
        for position, (job_id, _, _) in enumerate(self._changes[:count], self._first):
            if self._newest[job_id] == position:
                del self._newest[job_id]
        del self._changes[:count]
        self._first += count


class FeedReader:
    """One reader of a feed, with a position and a status filter."""

    def __init__(
        self, feed: ChangeFeed, statuses: Collection[Status] = (), position: int | None = None
    ) -> None:
        """Start at `position`, by default at the end of the feed; empty `statuses` means all."""
        self._feed = feed
        self._statuses = frozenset(statuses or Status)
        self.position = feed.end if position is None else position
        """Position of the next change to be examined."""
        self.coalesced = 0
        """Number of changes skipped because a newer one of the same job follows."""
        self._skipped: dict[str, tuple[int, bool]] = {}
        """For each job with skipped changes: position of the first, and whether the job ever matched."""
        self._may_know_any = False
        """Whether the client may know jobs in states that they never had in this feed."""

    def next(self) -> FeedEvent | None:
        """Return the next change that matches the filter and advance; None if there is none yet.

        A job that matched before and no longer does is returned without a snapshot. Raises FeedOverrun.
        """
        while self.position < self._feed.end:
            job_id, status_before, is_newest = self._feed.change(self.position)
            first, matched = self._skipped.get(job_id, (self.position, self._may_know_any))
            # Any earlier status counts: a reader that resumed may have seen changes after its position.
            matched = matched or status_before in self._statuses
            self.position += 1
            if not is_newest:
                self.coalesced += 1
                self._skipped[job_id] = first, matched
                continue
            self._skipped.pop(job_id, None)
            snapshot = self._matching(job_id)
            if snapshot is not None or matched:
                return FeedEvent(job_id, snapshot)
        return None

    @property
    def mark(self) -> FeedMark:
        """Where to resume after the events so far: before the first skipped change not yet reported."""
        return self._feed.mark(next((first for first, _ in self._skipped.values()), self.position))

    def _matching(self, job_id: str) -> JobSnapshot | None:
        """Return a job's current snapshot; None if it is gone or does not match the filter."""
        snapshot = self._feed.job(job_id)
        return snapshot if snapshot is not None and snapshot.job.status in self._statuses else None
