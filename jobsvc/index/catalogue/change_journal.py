"""Record which jobs have changed lately, so that a client can go on here with an event id of another replica.

Such an id says up to when the other replica had seen every change on storage. All changes after that time
were found here after it, too, except for the difference of the hosts' clocks and for what their file systems
cache: MARGIN_S. So the client lacks at most the jobs whose change was found here within MARGIN_S before that
time, or later.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from math import inf
from time import monotonic, time
from typing import Final

from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.storage.jobs.snapshot import JobSnapshot

MAX_JOBS: Final = 65_536
"""Maximum number of kept jobs, about 100 bytes each; above it, the older half is dropped."""
MARGIN_S: Final = 90.0
"""Seconds by which two replicas may differ: 60 for cached attributes and names (NFS), 30 for the clocks."""


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
        self._max_jobs = max_jobs
        self._clock = clock
        self._wall_clock = wall_clock
        self._complete_since = inf
        """All changes that were found after this time are kept; in seconds of `clock`."""
        self._changed_at: dict[str, float] = {}
        """When the last change of each job was found, in seconds of `clock`; in this order."""
        self._former_owners: dict[str, tuple[str, ...]] = {}
        """For kept jobs that were removed or changed their owner: whose they were."""
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
        changes = takewhile(lambda change: change[1] >= since, reversed(self._changed_at.items()))
        job_ids = [job_id for job_id, _ in changes if owner is None or self._concerns(job_id, owner)]
        job_ids.reverse()
        return job_ids

    def _concerns(self, job_id: str, owner: str) -> bool:
        """Return whether a kept job belongs, or belonged, to an owner."""
        entry = self._catalogue.get(job_id)
        if entry is not None and entry.snapshot.job.owner == owner:
            return True
        return owner in self._former_owners.get(job_id, ())

    def _on_change(self, job_id: str, before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        if self._complete_since == inf:
            return
        self._changed_at.pop(job_id, None)
        self._changed_at[job_id] = self._clock()
        if before is not None and (after is None or after.job.owner != before.job.owner):
            former = self._former_owners.get(job_id, ())
            if before.job.owner not in former:
                self._former_owners[job_id] = *former, before.job.owner
        if len(self._changed_at) > self._max_jobs:
            self._drop_older_half()

    def _on_rewritten(self, job_id: str, snapshot: JobSnapshot) -> None:
        self._on_change(job_id, snapshot, snapshot)

    def _drop_older_half(self) -> None:
        changes = list(self._changed_at.items())
        dropped = len(changes) // 2
        self._complete_since = changes[dropped - 1][1]
        self._changed_at = dict(changes[dropped:])
        for job_id, _ in changes[:dropped]:
            self._former_owners.pop(job_id, None)
