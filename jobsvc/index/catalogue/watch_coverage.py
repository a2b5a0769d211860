"""Decide when the absence of watch events proves that an entry is current. Event loop only; no I/O.

A heartbeat sent at time T guarantees that all events before T were delivered. An entry verified while
watched, with no event since, was therefore valid at T. All times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from jobsvc.index.catalogue.entries import Entry
from jobsvc.storage.jobs.snapshot import JobSnapshot


class WatchCoverage:
    """The period, `start` to `valid_until`, in which the watcher reports every change."""

    def __init__(
        self, on_missed_event: Callable[[str], None], needs_recheck: Callable[[JobSnapshot], bool]
    ) -> None:
        """`on_missed_event` is called with each job that changed without an event."""
        self.needs_recheck = needs_recheck
        """Return whether a snapshot must be checked on disk even while the watcher is healthy."""
        self.start = inf
        self.valid_until = -inf
        self._heartbeat_at = -inf
        self._root_ok_at = -inf
        self._unannounced: dict[str, float] = {}
        self._on_missed_event = on_missed_event

    def begin(self, now: float) -> None:
        """Start coverage: entries verified at or after `now` are covered if they are watched."""
        self.start = now
        self._unannounced.clear()

    def end(self) -> None:
        """End coverage: the watcher is gone or cannot be trusted."""
        self.start, self.valid_until, self._heartbeat_at = inf, -inf, -inf
        self._unannounced.clear()

    def is_covered(self, entry: Entry) -> bool:
        """Return whether the entry has been watched, without an event, since it was last verified."""
        return entry.verified_at > entry.last_event_at and entry.verified_at >= self.start

    def last_valid_at(self, entry: Entry) -> float:
        """Return the last time at which an entry was known to be current.

        That is the start of its last read or, if later, the end of its coverage.
        """
        verified, event = entry.verified_at, entry.last_event_at
        if event == inf or verified < self.start or self.needs_recheck(entry.snapshot):
            return verified
        return max(verified, self.valid_until if event < verified else min(self.valid_until, event))

    def valid_at(self, entries: Iterable[Entry]) -> float:
        """Return the last time at which all of these entries were known to be current; infinity for none."""
        since, until = self.start, self.valid_until
        times = [
            until
            if since <= entry.verified_at < until and entry.verified_at > entry.last_event_at
            else entry.verified_at
            for entry in entries
        ]
        return min(times, default=inf)

    def note_event(self, job_id: str) -> None:
        """Record that an event for this job arrived: a change found before it was not missed."""
        self._unannounced.pop(job_id, None)

    def note_unannounced(self, job_id: str, now: float) -> None:
        """Record that a covered job was found changed; its event can arrive until the next heartbeat."""
        self._unannounced.setdefault(job_id, now)

    def note_heartbeat(self, sent_at: float) -> float:
        """Record that all events before `sent_at` were delivered.

        A change found before `sent_at` without an event is then a missed event: `on_missed_event` is called.
        Returns the seconds since the previous heartbeat; 0 for the first.
        """
        interval = sent_at - self._heartbeat_at if self._heartbeat_at > -inf else 0.0
        self._heartbeat_at = sent_at
        self._update_valid_until()
        missed = [job_id for job_id, found_at in self._unannounced.items() if found_at < sent_at]
        for job_id in missed:
            self._unannounced.pop(job_id, None)
            self._on_missed_event(job_id)
        return interval

    def note_root_ok(self, checked_at: float) -> None:
        """Record that the root was available at `checked_at`, so the lack of events had no other cause."""
        self._root_ok_at = checked_at
        self._update_valid_until()

    def _update_valid_until(self) -> None:
        self.valid_until = min(self._heartbeat_at, self._root_ok_at)
