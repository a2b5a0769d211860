"""Decide when the absence of watch events proves that an entry is current. Event loop only; no I/O.

A heartbeat sent at time T guarantees that all events before T were delivered. An entry verified while
watched, with no event since, was therefore valid at T. All times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from jobsvc.index.catalogue.entries import Entry


class WatchCoverage:
    """The period, `start` to `valid_until`, in which the watcher reports every change."""

    def __init__(self, on_miss: Callable[[str], None] | None = None) -> None:
        self.start = inf
        self.valid_until = -inf
        self._heartbeat_at = -inf
        self._root_ok_at = -inf
        self._unannounced: dict[str, float] = {}
        self._on_miss = on_miss or _ignore

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

    def record_event(self, job_id: str) -> None:
        """Record that an event for this job arrived: a change found before it was not missed."""
        self._unannounced.pop(job_id, None)

    def record_unannounced(self, job_id: str, now: float) -> None:
        """Record that a covered job was found changed; its event can arrive until the next heartbeat."""
        self._unannounced.setdefault(job_id, now)

    def record_heartbeat(self, moment: float) -> float:
        """Record that all events before `moment` were delivered.

        A change found before `moment` without an event is then a missed event, and `on_miss` is called.
        Returns the seconds since the previous heartbeat; 0 for the first.
        """
        since = moment - self._heartbeat_at if self._heartbeat_at > -inf else 0.0
        self._heartbeat_at = moment
        self._settle()
        missed = [job_id for job_id, found in self._unannounced.items() if found < moment]
        for job_id in missed:
            self._unannounced.pop(job_id, None)
            self._on_miss(job_id)
        return since

    def record_root_ok(self, moment: float) -> None:
        """Record that the root was available at `moment`: the lack of earlier events had no other cause."""
        self._root_ok_at = moment
        self._settle()

    def _settle(self) -> None:
        self.valid_until = min(self._heartbeat_at, self._root_ok_at)


def _ignore(_job_id: str) -> None:
    """Do nothing."""
