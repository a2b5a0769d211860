"""List jobs in pages, newest first, of one owner or of all; sorted as jobs change, not per request."""

from __future__ import annotations

from collections.abc import Collection
from heapq import merge
from itertools import islice
from math import inf
from typing import Final, NamedTuple, TypeAlias

from jobsvc.domain.job import Job, Status
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.index_stats import IndexStats
from jobsvc.index.catalogue.unreadable import UnreadableRecord
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.index.queries.sorted_jobs import Key, SortedJobs, key_of
from jobsvc.storage.jobs.snapshot import JobSnapshot

MAX_EXAMINED: Final = 16_384
"""Maximum number of jobs examined for one page, about a millisecond; a page can end before it is full."""

After: TypeAlias = tuple[int, str]
"""End of a page: createdAt of the last examined job, in microseconds since the epoch, and its id."""


class Page(NamedTuple):
    """One page of a list."""

    snapshots: list[JobSnapshot]
    after: After | None
    """The next page starts after this job; None if there are no more jobs."""


class Listing:
    """Sorted jobs, one sequence per owner and status, updated by the catalogue's changes."""

    def __init__(self, catalogue: Catalogue, coverage: WatchCoverage, stats: IndexStats) -> None:
        self._catalogue = catalogue
        self._coverage = coverage
        self._stats = stats
        # Keyed by the status's text, because the hash of an enum member is computed in Python.
        self._orders: dict[tuple[str | None, str], SortedJobs] = {}
        for job_id, entry in catalogue.entries.items():
            self._changed(job_id, None, entry.snapshot)
        catalogue.subscribe(self._changed)

    def page(
        self,
        owner: str | None,
        *,
        owners: Collection[str] = (),
        statuses: Collection[Status] = (),
        updated_since: int | None = None,
        limit: int = 50,
        after: After | None = None,
    ) -> Page:
        """Return at most `limit` jobs of `owner` (None: of `owners`, or of all) that come after `after`.

        Empty `statuses` means all; `updated_since` is in microseconds since the epoch. A page that is not
        full can have a next page, because at most MAX_EXAMINED jobs are examined.
        """
        key: Key | None = None if after is None else (-after[0], after[1])
        wanted: Collection[str | None] = set(owners) or (owner,)
        orders = [
            self._orders.get((each, status.value)) for each in wanted for status in set(statuses) or Status
        ]
        present = [order for order in orders if order is not None]
        if updated_since is None:
            keys = list(islice(merge(*[order.after(key) for order in present]), limit + 1))
            return self._page(keys[:limit], keys[limit - 1] if len(keys) > limit else None)
        return self._updated(present, key, updated_since, limit)

    def _updated(self, orders: list[SortedJobs], key: Key | None, since: int, limit: int) -> Page:
        """Return a page of the jobs that were updated at or after `since`."""
        found: list[Key] = []
        left = MAX_EXAMINED
        for at, told, cost in merge(*[order.updated_after(key, since) for order in orders]):
            if left <= 0 or (told and len(found) == limit):
                return self._page(found, key)
            key = at
            left -= cost
            if told:
                found.append(at)
        return self._page(found, None)

    def valid_at(self, page: Page) -> float:
        """Return the last moment (monotonic seconds) at which a new page is known to have been valid.

        A new job without an event is missing from the page until the next reconcile.
        """
        entries = self._catalogue.entries
        shown = self._coverage.valid_at([entries[reading.job.id] for reading in page.snapshots])
        return min([self._whole(), shown, *(record.last_valid_at for record in self._unreadable(page))])

    def has_unreadable(self, page: Page) -> bool:
        """Return whether the page contains the last good record of a job that cannot be read now."""
        return bool(self._unreadable(page))

    def _unreadable(self, page: Page) -> list[UnreadableRecord]:
        if not (unreadable := self._catalogue.unreadable):
            return []
        found = (unreadable.get(reading.job.id) for reading in page.snapshots)
        return [record for record in found if record is not None]

    def _whole(self) -> float:
        """Return the last moment at which the index is known to have contained every job."""
        stats, coverage = self._stats, self._coverage
        if stats.reconciled_at is None:
            return -inf
        started_at = stats.reconciled_at - stats.reconcile_seconds
        return max(started_at, coverage.valid_until) if started_at >= coverage.start else started_at

    def _page(self, found: list[Key], key: Key | None) -> Page:
        entries = self._catalogue.entries
        return Page(
            [entries[job_id].snapshot for _, job_id in found], None if key is None else (-key[0], key[1])
        )

    def _changed(self, _job_id: str, before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        if before is not None and (after is None or _place(before.job) != _place(after.job)):
            self._drop(before.job)
        if after is not None:
            self._put(after.job)

    def _put(self, job: Job) -> None:
        orders, status, key, updated = self._orders, job.status.value, key_of(job), job.updated_order
        for owner in (job.owner, None):
            order = orders.get((owner, status))
            if order is None:
                order = orders[owner, status] = SortedJobs()
            order.add(key, updated)

    def _drop(self, job: Job) -> None:
        orders, status, key = self._orders, job.status.value, key_of(job)
        for owner in (job.owner, None):
            order = orders[owner, status]
            order.discard(key)
            if not order:
                del orders[owner, status]


def _place(job: Job) -> tuple[str, Status, int]:
    """Return what a job's place in the sequences depends on, besides its id."""
    return job.owner, job.status, job.created_order
