"""Know which unfinished jobs are stalled: their record was not written for a given time. Event loop only.

Nothing is read for this: the modification time of each record is known from the read that every unfinished
job gets at each poll. A job counts as stalled only once such a read has confirmed it, so none does because
the storage does not respond.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from time import monotonic, time
from typing import Final

from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.storage.jobs.snapshot import JobSnapshot

CHECK_INTERVAL_S: Final = 1.0
"""Seconds between two checks; also after which a job that was not read meanwhile is checked again."""
JOBS_PER_STEP: Final = 100
"""Jobs that are checked before other callbacks run: if a farm stops, all its jobs stall at once."""


class StalledJobs:
    """The ids of the stalled jobs. It subscribes to the catalogue: create it before listeners that use it."""

    def __init__(self, catalogue: Catalogue, after_s: float, *, clock: Callable[[], float] = time) -> None:
        """Treat a job as stalled `after_s` seconds after its record was written; with 0, never."""
        self._catalogue = catalogue
        self._after_s = after_s
        self._clock = clock
        self._stalled: set[str] = set()
        self._due: list[tuple[float, str]] = []
        """Heap of times (seconds since the epoch) and job ids; those not in `_scheduled` are obsolete."""
        self._scheduled: dict[str, float] = {}
        if after_s:
            catalogue.subscribe(self._on_change)
            catalogue.rewrite_listeners.append(self._on_rewritten)

    def __contains__(self, job_id: object) -> bool:
        """Return whether a job is stalled."""
        return job_id in self._stalled

    def __len__(self) -> int:
        """Return the number of stalled jobs."""
        return len(self._stalled)

    async def watch(self) -> None:
        """Wait, then find the jobs that have stalled, and call the catalogue's listeners for them."""
        await asyncio.sleep(CHECK_INTERVAL_S)
        more = True
        while more:
            more = self.check_some()
            await asyncio.sleep(0)

    def check_some(self) -> bool:
        """Check some of the jobs whose time has come; return whether there can be more."""
        now = self._clock()
        for _ in range(JOBS_PER_STEP):
            if not self._due or self._due[0][0] > now:
                return False
            at, job_id = heappop(self._due)
            if self._scheduled.get(job_id) == at:
                del self._scheduled[job_id]
                self._check(job_id, now)
        return True

    def _check(self, job_id: str, now: float) -> None:
        entry = self._catalogue.get(job_id)
        if entry is None or entry.snapshot.job.status.final:
            return
        if now - (monotonic() - entry.verified_at) < self._stalls_at(entry.snapshot):
            self._schedule(job_id, max(self._stalls_at(entry.snapshot), now + CHECK_INTERVAL_S))
            return
        self._update(job_id, entry.snapshot)
        if job_id in self._stalled:
            self._catalogue.notify_shown_differently(job_id)

    def _on_change(self, job_id: str, _before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        if after is None or after.job.status.final:
            self._stalled.discard(job_id)
        else:
            self._update(job_id, after)

    def _on_rewritten(self, job_id: str, snapshot: JobSnapshot) -> None:
        """Handle a record that was written with the same content: listeners were not called."""
        was_stalled = job_id in self._stalled
        self._on_change(job_id, None, snapshot)
        if was_stalled is not (job_id in self._stalled):
            self._catalogue.notify_shown_differently(job_id)

    def _update(self, job_id: str, snapshot: JobSnapshot) -> None:
        at = self._stalls_at(snapshot)
        if at <= self._clock():
            self._stalled.add(job_id)
        else:
            self._stalled.discard(job_id)
            self._schedule(job_id, at)

    def _schedule(self, job_id: str, at: float) -> None:
        """Check a job at a time, unless it is checked earlier anyway: the check finds the time by itself."""
        if at < self._scheduled.get(job_id, at + 1):
            self._scheduled[job_id] = at
            heappush(self._due, (at, job_id))

    def _stalls_at(self, snapshot: JobSnapshot) -> float:
        return snapshot.record_version.mtime_ns / 1e9 + self._after_s
