"""Every job that is known, by id, with the moment it was last seen on disk. Loop-owned; no locks.

Nothing here is a second truth: it may all be dropped and read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from math import inf
from typing import Final, TypeAlias

from jobsvc.domain.job import Status
from jobsvc.index.catalogue.unreadable import UnreadableRecords
from jobsvc.storage.jobs.snapshot import JobSnapshot

ChangeListener: TypeAlias = Callable[[str, JobSnapshot | None, JobSnapshot | None], None]
"""Called with a job's id, its reading before and its reading after; None where there was, or is, none."""

REMEMBER_ABSENCE_S: Final = 15.0
"""Seconds for which an absence is remembered: longer than any look may take."""


class Entry:
    """What is known of one job."""

    __slots__ = ("inode", "last_event_at", "snapshot", "verified_at", "watched_folders")

    def __init__(self, reading: JobSnapshot, verified: float) -> None:
        self.snapshot = reading
        self.verified_at = verified
        """Monotonic seconds at which the look at the disk began that this rests on."""
        self.last_event_at = inf
        """Monotonic seconds of the last hint; infinity where no watch would tell of a change."""
        self.watched_folders: tuple[str, ...] | None = None
        """Folders of the job that are watched along with its directory; None where that is not watched."""
        self.inode: int | None = None
        """The inode number of the job's directory in the last listing of names; None before the first."""


class Catalogue:
    """Readings by id, counted by status; whoever subscribed is told of each change, once, in order."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        """To be read by anyone; changed only here."""
        self.unreadable = UnreadableRecords()
        """Jobs whose record could not be read when last looked at, and why."""
        self.unlisted: dict[str, float] = {}
        """Jobs that are gone by a listing of the root, though a cached name may lead to them still, and until
        when (monotonic seconds) such a name is not believed.
        """
        self._counts = dict.fromkeys(Status, 0)
        self._unfinished: dict[str, None] = {}
        self._listeners: list[ChangeListener] = []
        self._absences: OrderedDict[str, float] = OrderedDict()
        """When the look began that found this id absent; the oldest first."""
        self._forgotten_at = -inf
        """When the newest of the looks began whose absences are remembered no more."""

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def counts(self) -> Mapping[Status, int]:
        """How many jobs are in each status."""
        return self._counts

    def unfinished(self) -> Iterator[str]:
        """Go through the ids of jobs that are queued or rendering, as they were at the first step."""
        return iter(tuple(self._unfinished))

    def get(self, job_id: str) -> Entry | None:
        """Return what is known of a job."""
        return self.entries.get(job_id)

    def put(self, job_id: str, reading: JobSnapshot, begun: float) -> bool:
        """Take in a look that began at `begun`; one that began before the last look taken in is dropped.

        Returns whether the job is now known to have changed. Another version of its output is told of, but
        is no change of the job: a watch need not have announced it.
        """
        entry = self.entries.get(job_id)
        if self.is_older_read(job_id, begun):
            return False
        if entry is None:
            self._absences.pop(job_id, None)
            self.entries[job_id] = Entry(reading, begun)
            self._changed(job_id, None, reading)
            return True
        entry.verified_at = begun
        before = entry.snapshot
        if reading is before:
            return False
        if reading.job == before.job and reading.has_output is before.has_output:
            # The same job object throughout: others hold it too, and a second one would only cost memory.
            entry.snapshot = reading.of(before.job)
            if reading.output_version != before.output_version:
                self._notify(job_id, before, entry.snapshot)
            return False
        entry.snapshot = reading
        self._changed(job_id, before, reading)
        return True

    def mark_unreadable(self, job_id: str, why: str, begun: float, last_valid_at: float) -> bool:
        """Take in that a look begun at `begun` could not read the record; the last good one stands.

        `last_valid_at` (monotonic seconds) is when that was last known to be true. Returns whether this is
        the first look in a row that failed.
        """
        if self.is_older_read(job_id, begun):
            return False
        first = self.unreadable.add(job_id, why, begun, last_valid_at)
        if (entry := self.entries.get(job_id)) is not None:
            entry.verified_at = begun
        return first

    def prune_unlisted(self, names: AbstractSet[str]) -> None:
        """Forget records that could not be read and that nobody looks at any more: they are there no more."""
        for job_id in [job_id for job_id in self.unreadable if job_id not in names]:
            if job_id not in self.entries:
                self.unreadable.discard(job_id)

    def remove(self, job_id: str, begun: float) -> bool:
        """Forget a job that a look begun at `begun` did not find; returns whether it was known."""
        if self.is_older_read(job_id, begun):
            return False
        self.unreadable.discard(job_id)
        self._absent(job_id, begun)
        entry = self.entries.pop(job_id, None)
        if entry is None:
            return False
        self._changed(job_id, entry.snapshot, None)
        return True

    def is_older_read(self, job_id: str, begun: float) -> bool:
        """Whether a later look than one begun at `begun` was taken in, or none is to be believed."""
        entry = self.entries.get(job_id)
        if entry is None and job_id in self.unlisted:
            return True
        return begun < (
            self._absences.get(job_id, self._forgotten_at) if entry is None else entry.verified_at
        )

    def _absent(self, job_id: str, begun: float) -> None:
        """Remember an absence: a look that began before it, and ends after it, may have seen the job."""
        self._absences[job_id] = begun
        self._absences.move_to_end(job_id)
        while self._absences[next(iter(self._absences))] < begun - REMEMBER_ABSENCE_S:
            self._forgotten_at = max(self._forgotten_at, self._absences.popitem(last=False)[1])

    def notify_digest_known(self, job_id: str) -> None:
        """Tell who subscribed that the job's representation has more in it now than its reading says."""
        if (entry := self.entries.get(job_id)) is not None:
            self._notify(job_id, entry.snapshot, entry.snapshot)

    def subscribe(self, listener: ChangeListener) -> Callable[[], None]:
        """Call `listener` for each change from now on, until the returned function is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _changed(self, job_id: str, before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        if before is not None:
            self._counts[before.job.status] -= 1
            self._unfinished.pop(job_id, None)
        if after is not None:
            self._counts[after.job.status] += 1
            if not after.job.status.final:
                self._unfinished[job_id] = None
        self._notify(job_id, before, after)

    def _notify(self, job_id: str, before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        for listener in tuple(self._listeners):
            listener(job_id, before, after)
