"""Record which jobs have changed lately, so that a client can go on here with an event id of another replica.

Such an id says up to when the other replica had seen every change on storage. All changes after that time
were found here after it, too, except for the difference of the hosts' clocks and for what their file systems
cache: MARGIN_S. So the client lacks at most the jobs whose change was found here within MARGIN_S before that
time, or later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile
from math import inf
from time import monotonic, time
from typing import Final

from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.storage.jobs.snapshot import JobSnapshot

MAX_JOBS: Final = 65_536
"""Maximum number of kept jobs, 30 to 70 bytes each; then those of the earlier half are dropped."""
MARGIN_S: Final = 90.0
"""Seconds by which two replicas may differ: 60 for cached attributes and names (NFS), 30 for the clocks."""


class _Period:
    """The jobs that changed in one period."""

    __slots__ = ("count", "ended_at", "of_owners")

    def __init__(self) -> None:
        self.of_owners: dict[str, dict[str, float]] = {}
        """By owner, before or after the change: when each job last changed (monotonic seconds), in order."""
        self.count = 0
        """Number of jobs; one that changed its owner counts twice."""
        self.ended_at = -inf
        """When the last change was found."""

    def note(self, owner: str, job_id: str, now: float) -> None:
        """Record a change of a job that belongs to an owner, or belonged before."""
        changed_at = self.of_owners.setdefault(owner, {})
        if changed_at.pop(job_id, None) is None:
            self.count += 1
        changed_at[job_id] = now

    def since(self, start: float, owner: str | None) -> Iterator[str]:
        """Iterate over an owner's jobs (None: all) whose last change was found at or after a time."""
        owners = self.of_owners if owner is None else self.of_owners.keys() & {owner}
        for each in owners:
            changes = reversed(self.of_owners[each].items())
            yield from (job_id for job_id, _ in takewhile(lambda change: change[1] >= start, changes))


class ChangeJournal:
    """The jobs that have changed since the first index, with the time of the last change. Event loop only.

    A record that was written again with the same content counts as changed: another replica can have seen,
    and sent, what it contained in between.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        max_jobs: int = MAX_JOBS,
        *,
        clock: Callable[[], float] = monotonic,
        wall_clock: Callable[[], float] = time,
    ) -> None:
        """Record nothing until the first `note_reconciled`."""
        self.seen_until = 0.0
        """Every earlier change on storage is in the catalogue (seconds since the epoch); 0 if unknown."""
        self._max_jobs_of_period = max_jobs // 2
        self._clock = clock
        self._wall_clock = wall_clock
        self._complete_since = inf
        """All changes that were found after this time are kept; in seconds of `clock`."""
        self._earlier, self._current = _Period(), _Period()
        catalogue.subscribe(self._on_change)
        catalogue.rewrite_listeners.append(self._on_rewritten)

    def note_reconciled(self, started_at: float, *, found_all: bool) -> None:
        """Record a comparison of the catalogue with storage; the first one is the first index.

        `found_all`: each job was read at or after `started_at` (seconds since the epoch).
        """
        if self._complete_since == inf:
            self._complete_since = self._clock()
        if found_all:
            self.seen_until = started_at

    def wall_time(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self._wall_clock()

    def changed_since(self, seen_until: float, owner: str | None) -> list[str] | None:
        """Return the jobs of an owner (None: of all) that changed after a time.

        The time is the `seen_until` of another replica. Jobs that were the owner's until then, and those that
        changed up to MARGIN_S earlier, are included. Returns None if not all changes since then are kept.
        """
        age = self.wall_time() - seen_until
        since = self._clock() - age - MARGIN_S
        if since <= self._complete_since or age < -MARGIN_S:
            return None
        periods = self._current, self._earlier
        return list(dict.fromkeys(job_id for period in periods for job_id in period.since(since, owner)))

    def _on_change(self, job_id: str, before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        if self._complete_since == inf:
            return
        now, period = self._clock(), self._current
        if after is not None:
            period.note(after.job.owner, job_id, now)
        if before is not None and (after is None or after.job.owner != before.job.owner):
            period.note(before.job.owner, job_id, now)
        if period.count >= self._max_jobs_of_period:
            period.ended_at = now
            self._complete_since = max(self._complete_since, self._earlier.ended_at)
            self._earlier, self._current = period, _Period()

    def _on_rewritten(self, job_id: str, snapshot: JobSnapshot) -> None:
        self._on_change(job_id, snapshot, snapshot)
