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
"""Maximum number of kept jobs, 30 to 70 bytes each; then the half that changed first is dropped."""
MARGIN_S: Final = 90.0
"""Seconds by which two replicas may differ: 60 for cached attributes and names (NFS), 30 for the clocks."""


class _Period:
    """The jobs that changed in one period."""

    __slots__ = ("changed_at", "former_owners")

    def __init__(self) -> None:
        self.changed_at: dict[str, float] = {}
        """When the last change of each job was found, in monotonic seconds; in this order."""
        self.former_owners: dict[str, tuple[str, ...]] = {}
        """For jobs that were removed or changed their owner: whose they were."""


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
        self._catalogue = catalogue
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
        """Return the jobs of an owner (None: of all) that changed after a time, oldest change first.

        The time is the `seen_until` of another replica. Jobs that were the owner's before, and those that
        changed up to MARGIN_S earlier, are included. Returns None if not all changes since then are kept.
        """
        age = self.wall_time() - seen_until
        since = self._clock() - age - MARGIN_S
        if since <= self._complete_since or age < -MARGIN_S:
            return None
        job_ids = [*self._after(self._current, since)]
        known = self._current.changed_at
        job_ids += [job_id for job_id in self._after(self._earlier, since) if job_id not in known]
        job_ids.reverse()
        return job_ids if owner is None else self._of_owner(job_ids, owner)

    @staticmethod
    def _after(period: _Period, since: float) -> Iterator[str]:
        """Iterate over the jobs whose last change in a period was found at or after a time, newest first."""
        changes = reversed(period.changed_at.items())
        return (job_id for job_id, _ in takewhile(lambda change: change[1] >= since, changes))

    def _of_owner(self, job_ids: list[str], owner: str) -> list[str]:
        """Return the jobs that belong, or belonged, to an owner."""
        entries = self._catalogue.entries
        left = {
            job_id
            for period in (self._earlier, self._current)
            for job_id, former in period.former_owners.items()
            if owner in former
        }
        return [
            job_id
            for job_id in job_ids
            if job_id in left
            or ((entry := entries.get(job_id)) is not None and entry.snapshot.job.owner == owner)
        ]

    def _on_change(self, job_id: str, before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        if self._complete_since == inf:
            return
        changed_at = self._current.changed_at
        changed_at.pop(job_id, None)
        changed_at[job_id] = self._clock()
        if before is not None and (after is None or after.job.owner != before.job.owner):
            former_owners = self._current.former_owners
            former = former_owners.get(job_id, ())
            if before.job.owner not in former:
                former_owners[job_id] = *former, before.job.owner
        if len(changed_at) >= self._max_jobs_of_period:
            self._begin_period()

    def _on_rewritten(self, job_id: str, snapshot: JobSnapshot) -> None:
        self._on_change(job_id, snapshot, snapshot)

    def _begin_period(self) -> None:
        if self._earlier.changed_at:
            self._complete_since = next(reversed(self._earlier.changed_at.values()))
        self._earlier, self._current = self._current, _Period()
