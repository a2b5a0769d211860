"""Keep every known job by id, with the time of its last read. Event loop only, except Entry.inode; no locks.

This is a cache: the disk is the only source of data, and everything here can be dropped and read again.
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
"""Called with a job's id, its previous and its new snapshot; None if the job did not or does not exist."""

REMEMBER_ABSENCE_S: Final = 15.0
"""Seconds for which the absence of a job is remembered: longer than any read can take."""


class Entry:
    """One known job."""

    __slots__ = ("inode", "last_event_at", "snapshot", "verified_at", "watched_folders")

    def __init__(self, snapshot: JobSnapshot, verified_at: float) -> None:
        self.snapshot = snapshot
        self.verified_at = verified_at
        """When the read that last confirmed the snapshot started (monotonic seconds)."""
        self.last_event_at = inf
        """When the last event was received (monotonic seconds); infinity if no watch reports changes."""
        self.watched_folders: tuple[str, ...] | None = None
        """Subdirectories watched besides the job directory; None if the job directory is not watched."""
        self.inode: int | None = None
        """The job directory's inode number in the last root listing; None before one. Set in threads."""

    @property
    def is_watched(self) -> bool:
        """Whether a watch reports the job's changes."""
        return self.last_event_at < inf


class Catalogue:
    """Snapshots by job id, counted by status. Listeners are called once per change, in order."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        """Other modules can read this; only Catalogue adds and removes entries."""
        self.unreadable = UnreadableRecords()
        """Jobs whose record could not be read the last time, and why."""
        self.unlisted: dict[str, float] = {}
        """Jobs missing from the listing of the root whose cached names can still resolve to a directory.

        The value is the time (monotonic seconds) until which reads of that name are ignored.
        """
        self.rewrite_listeners: list[Callable[[str, JobSnapshot], None]] = []
        """Called if a record was written again with the same content; other listeners are not called then."""
        self._counts = dict.fromkeys(Status, 0)
        self._unfinished: dict[str, None] = {}
        self._listeners: list[ChangeListener] = []
        self._absences: OrderedDict[str, float] = OrderedDict()
        """By job id, when the read that found it absent started (monotonic seconds); oldest first."""
        self._forgotten_at = -inf
        """The latest start time among the absences that were dropped from `_absences`."""

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def counts(self) -> Mapping[Status, int]:
        """The number of jobs in each status."""
        return self._counts

    def unfinished(self) -> Iterator[str]:
        """Iterate over the ids of queued and rendering jobs, as of this call."""
        return iter(tuple(self._unfinished))

    def get(self, job_id: str) -> Entry | None:
        """Return the entry of a job; None if the job is unknown."""
        return self.entries.get(job_id)

    def put(self, job_id: str, snapshot: JobSnapshot, started_at: float) -> bool:
        """Store the result of a read that started at `started_at` (monotonic seconds).

        It is dropped if a read that started later was already stored. Returns whether a watch should have
        reported the change: not if only an output's version changed, although listeners are called then.
        """
        entry = self.entries.get(job_id)
        if self.is_older_read(job_id, started_at):
            return False
        if entry is None:
            self._absences.pop(job_id, None)
            self.entries[job_id] = Entry(snapshot, started_at)
            self._changed(job_id, None, snapshot)
            return True
        entry.verified_at = started_at
        before = entry.snapshot
        if snapshot is before:
            return False
        if snapshot.job == before.job and snapshot.kinds == before.kinds:
            # Keep the existing Job object: it is referenced elsewhere, and a second one only costs memory.
            entry.snapshot = snapshot.with_job(before.job)
            if snapshot.record_version != before.record_version:
                for listener in self.rewrite_listeners:
                    listener(job_id, entry.snapshot)
            if not snapshot.has_same_outputs(before):
                self._notify(job_id, before, entry.snapshot)
            return False
        entry.snapshot = snapshot
        self._changed(job_id, before, snapshot)
        return True

    def mark_unreadable(self, job_id: str, reason: str, started_at: float, last_valid_at: float) -> bool:
        """Record that a read started at `started_at` could not read the record; keep the last good snapshot.

        `last_valid_at` is when that snapshot was last known to be current. Times are monotonic seconds.
        Returns whether this is the first failed read in a row.
        """
        if self.is_older_read(job_id, started_at):
            return False
        first = self.unreadable.add(job_id, reason, started_at, last_valid_at)
        if (entry := self.entries.get(job_id)) is not None:
            entry.verified_at = started_at
        return first

    def prune_unreadable(self, names: AbstractSet[str]) -> None:
        """Drop unreadable records of unknown jobs that are not in `names`, the listing of the root."""
        for job_id in [job_id for job_id in self.unreadable if job_id not in names]:
            if job_id not in self.entries:
                self.unreadable.discard(job_id)

    def remove(self, job_id: str, started_at: float) -> bool:
        """Remove a job that a read started at `started_at` did not find. Returns whether it was known."""
        if self.is_older_read(job_id, started_at):
            return False
        self.unreadable.discard(job_id)
        self._absent(job_id, started_at)
        entry = self.entries.pop(job_id, None)
        if entry is None:
            return False
        self._changed(job_id, entry.snapshot, None)
        return True

    def is_older_read(self, job_id: str, started_at: float) -> bool:
        """Return whether to drop a read: a later one is stored, or the job is unlisted."""
        entry = self.entries.get(job_id)
        if entry is None and job_id in self.unlisted:
            return True
        return started_at < (
            self._absences.get(job_id, self._forgotten_at) if entry is None else entry.verified_at
        )

    def _absent(self, job_id: str, started_at: float) -> None:
        """Remember an absence, since a read that started earlier and ends later might have seen the job."""
        self._absences[job_id] = started_at
        self._absences.move_to_end(job_id)
        while self._absences[next(iter(self._absences))] < started_at - REMEMBER_ABSENCE_S:
            self._forgotten_at = max(self._forgotten_at, self._absences.popitem(last=False)[1])

    def notify_shown_differently(self, job_id: str) -> None:
        """Call the listeners: the job's representation changed, but not its snapshot.

        That is so if the digest of its output becomes known, and if the job stalls.
        """
        if (entry := self.entries.get(job_id)) is not None:
            self._notify(job_id, entry.snapshot, entry.snapshot)

    def subscribe(self, listener: ChangeListener) -> Callable[[], None]:
        """Call `listener` for each change until the returned function is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _changed(self, job_id: str, before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        """Update the counts by status and the unfinished jobs, and call the listeners."""
        if before is not None:
            self._counts[before.job.status] -= 1
            self._unfinished.pop(job_id, None)
        if after is not None:
            self._counts[after.job.status] += 1
            if not after.job.status.final:
                self._unfinished[job_id] = None
        self._notify(job_id, before, after)

    def _notify(self, job_id: str, before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        """Call the listeners: subscriptions, the job list and others."""
        for listener in tuple(self._listeners):
            listener(job_id, before, after)
