"""When a quiet watcher is as good as a look at the disk. Loop-owned arithmetic of monotonic seconds; no I/O.

A beat of the watcher at time T proves that every event before T has been handed over. So an entry that was
verified under the watch, and that nothing was heard of since, was still true at T.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from jobsvc.index.catalogue.entries import Entry


class Coverage:
    """Since when, and until when, the watcher would have told of every change."""

    def __init__(self, on_miss: Callable[[str], None] | None = None) -> None:
        self.since = inf
        self.until = -inf
        self._beat = -inf
        self._probed = -inf
        self._surprises: dict[str, float] = {}
        self._on_miss = on_miss or _ignore

    def begin(self, now: float) -> None:
        """All watches are in force: what is verified from `now` on is covered."""
        self.since = now
        self._surprises.clear()

    def end(self) -> None:
        """Cover nothing: the watcher is gone, or not to be believed."""
        self.since, self.until, self._beat = inf, -inf, -inf
        self._surprises.clear()

    def covers(self, entry: Entry) -> bool:
        """Whether the watch has been upon this entry since it was last verified."""
        return entry.verified > entry.doubted and entry.verified >= self.since

    def as_of(self, entries: Iterable[Entry]) -> float:
        """Return the last moment at which all of these entries are known to have been true."""
        since, until = self.since, self.until
        times = [
            until if since <= entry.verified < until and entry.verified > entry.doubted else entry.verified
            for entry in entries
        ]
        return min(times, default=inf)

    def hint(self, job_id: str) -> None:
        """Take in that this job was announced: whatever was found of it meanwhile is no surprise."""
        self._surprises.pop(job_id, None)

    def surprise(self, job_id: str, now: float) -> None:
        """Note that a covered job was found changed; its hint may be on the way until the next beat."""
        self._surprises.setdefault(job_id, now)

    def beat(self, moment: float) -> float:
        """Take in that all events before `moment` were told: an older surprise was a missed hint.

        Returns the seconds since the beat before; 0 for the first.
        """
        since = moment - self._beat if self._beat > -inf else 0.0
        self._beat = moment
        self._settle()
        missed = [job_id for job_id, found in self._surprises.items() if found < moment]
        for job_id in missed:
            self._surprises.pop(job_id, None)
            self._on_miss(job_id)
        return since

    def probed(self, moment: float) -> None:
        """Note that the root was there at `moment`: silence before it did not mean storage away."""
        self._probed = moment
        self._settle()

    def _settle(self) -> None:
        self.until = min(self._beat, self._probed)


def _ignore(_job_id: str) -> None:
    """Nobody asked to be told."""
