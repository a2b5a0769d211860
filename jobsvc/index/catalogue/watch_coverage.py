"""When a quiet watcher is as good as a look at the disk. Loop-owned arithmetic of monotonic seconds; no I/O.

A beat of the watcher at time T proves that every event before T has been handed over. So an entry that was
verified under the watch, and that nothing was heard of since, was still true at T.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from jobsvc.index.catalogue.entries import Entry


class WatchCoverage:
    """Since when, and until when, the watcher would have told of every change."""

    def __init__(self, on_miss: Callable[[str], None] | None = None) -> None:
        self.start = inf
        self.valid_until = -inf
        self._heartbeat_at = -inf
        self._root_ok_at = -inf
        self._unannounced: dict[str, float] = {}
        self._on_miss = on_miss or _ignore

    def begin(self, now: float) -> None:
        """All watches are in force: what is verified from `now` on is covered."""
        self.start = now
        self._unannounced.clear()

    def end(self) -> None:
        """Cover nothing: the watcher is gone, or not to be believed."""
        self.start, self.valid_until, self._heartbeat_at = inf, -inf, -inf
        self._unannounced.clear()

    def is_covered(self, entry: Entry) -> bool:
        """Whether the watch has been upon this entry since it was last verified."""
        return entry.verified_at > entry.last_event_at and entry.verified_at >= self.start

    def valid_at(self, entries: Iterable[Entry]) -> float:
        """Return the last moment at which all of these entries are known to have been true."""
        since, until = self.start, self.valid_until
        times = [
            until
            if since <= entry.verified_at < until and entry.verified_at > entry.last_event_at
            else entry.verified_at
            for entry in entries
        ]
        return min(times, default=inf)

    def record_event(self, job_id: str) -> None:
        """Take in that this job was announced: whatever was found of it meanwhile is no surprise."""
        self._unannounced.pop(job_id, None)

    def record_unannounced(self, job_id: str, now: float) -> None:
        """Note that a covered job was found changed; its hint may be on the way until the next beat."""
        self._unannounced.setdefault(job_id, now)

    def record_heartbeat(self, moment: float) -> float:
        """Take in that all events before `moment` were told: an older surprise was a missed hint.

        Returns the seconds since the beat before; 0 for the first.
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
        """Note that the root was there at `moment`: silence before it did not mean storage away."""
        self._root_ok_at = moment
        self._settle()

    def _settle(self) -> None:
        self.valid_until = min(self._heartbeat_at, self._root_ok_at)


def _ignore(_job_id: str) -> None:
    """Nobody asked to be told."""
