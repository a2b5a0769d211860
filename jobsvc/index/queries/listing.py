"""List jobs in pages, newest first, of one owner or of all; sorted as jobs change, not per request."""

from __future__ import annotations

from collections.abc import Collection, Container
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


_Orders: TypeAlias = dict[tuple[str | None, str], SortedJobs]
"""Jobs by owner (None: all) and status."""


class Page(NamedTuple):
    """One page of a list."""

    snapshots: list[JobSnapshot]
    after: After | None
    """The next page starts after this job; None if there are no more jobs."""


class Listing:
    """Sorted jobs, one sequence per owner and status, updated by the catalogue's changes."""

    def __init__(
        self, catalogue: Catalogue, coverage: WatchCoverage, stats: IndexStats, stalled: Container[str] = ()
    ) -> None:
        """`stalled` contains the ids of stalled jobs; when that changes, the catalogue has to notify."""
        self._catalogue = catalogue
        self._coverage = coverage
        self._stats = stats
        # Keyed by the status's text, because the hash of an enum member is computed in Python.
        self._orders: _Orders = {}
        self._stalled = stalled
        self._stalled_orders: _Orders = {}
        self._in_stalled_orders: dict[str, Job] = {}
        for job_id, entry in catalogue.entries.items():
            self._on_change(job_id, None, entry.snapshot)
        catalogue.subscribe(self._on_change)

    def page(
        self,
        owner: str | None,
        *,
        owners: Collection[str] = (),
        statuses: Collection[Status] = (),
        stalled: bool = False,
        updated_since: int | None = None,
        limit: int = 50,
        after: After | None = None,
    ) -> Page:
        """Return at most `limit` jobs of `owner` (None: of `owners`, or of all) that come after `after`.

        Empty `statuses` means all; `stalled`: only stalled jobs; `updated_since` is in microseconds since the
        epoch. A page that is not full can have a next page, because at most MAX_EXAMINED jobs are examined.
        """
        key: Key | None = None if after is None else (-after[0], after[1])
        wanted: Collection[str | None] = set(owners) or (owner,)
        of_status = self._stalled_orders if stalled else self._orders
        orders = [
            of_status.get((each, status.value)) for each in wanted for status in set(statuses) or Status
        ]
        present = [order for order in orders if order is not None]
        if updated_since is None:
            keys = list(islice(merge(*[order.after(key) for order in present]), limit + 1))
            return self._page(keys[:limit], keys[limit - 1] if len(keys) > limit else None)
        return self._updated(present, key, updated_since, limit)

    def _updated(self, orders: list[SortedJobs], key: Key | None, since: int, limit: int) -> Page:
        """Return a page of the jobs that were updated at or after `since`."""
        keys: list[Key] = []
        remaining = MAX_EXAMINED
        for step_key, is_match, cost in merge(*[order.updated_after(key, since) for order in orders]):
            if remaining <= 0 or (is_match and len(keys) == limit):
                return self._page(keys, key)
            key = step_key
            remaining -= cost
            if is_match:
                keys.append(step_key)
        return self._page(keys, None)

    def valid_at(self, page: Page) -> float:
        """Return the last time (monotonic seconds) at which a new page is known to have been valid.

        A new job without an event is missing from the page until the next reconcile.
        """
        entries = self._catalogue.entries
        jobs_valid_at = self._coverage.valid_at([entries[each.job.id] for each in page.snapshots])
        return min(
            [self._complete_at(), jobs_valid_at, *(record.last_valid_at for record in self._unreadable(page))]
        )

    def has_unreadable(self, page: Page) -> bool:
        """Return whether the page contains the last good record of a job that cannot be read now."""
        return bool(self._unreadable(page))

    def _unreadable(self, page: Page) -> list[UnreadableRecord]:
        if not (unreadable := self._catalogue.unreadable):
            return []
        records = (unreadable.get(snapshot.job.id) for snapshot in page.snapshots)
        return [record for record in records if record is not None]

    def _complete_at(self) -> float:
        """Return the last time at which the index is known to have contained every job."""
        stats, coverage = self._stats, self._coverage
        if stats.reconciled_at is None:
            return -inf
        started_at = stats.reconciled_at - stats.reconcile_seconds
        return max(started_at, coverage.valid_until) if started_at >= coverage.start else started_at

    def _page(self, keys: list[Key], last: Key | None) -> Page:
        entries = self._catalogue.entries
        return Page(
            [entries[job_id].snapshot for _, job_id in keys], None if last is None else (-last[0], last[1])
        )

    def _on_change(self, job_id: str, before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        if before is not None and (after is None or _sort_place(before.job) != _sort_place(after.job)):
            _drop(self._orders, before.job)
        if after is not None:
            _put(self._orders, after.job)
        if (stalled_job := self._in_stalled_orders.pop(job_id, None)) is not None:
            _drop(self._stalled_orders, stalled_job)
        if after is not None and job_id in self._stalled:
            self._in_stalled_orders[job_id] = after.job
            _put(self._stalled_orders, after.job)


def _put(orders: _Orders, job: Job) -> None:
    status, key, updated = job.status.value, key_of(job), job.updated_order
    for owner in (job.owner, None):
        order = orders.get((owner, status))
        if order is None:
            order = orders[owner, status] = SortedJobs()
        order.add(key, updated)


def _drop(orders: _Orders, job: Job) -> None:
    status, key = job.status.value, key_of(job)
    for owner in (job.owner, None):
        order = orders[owner, status]
        order.discard(key)
        if not order:
            del orders[owner, status]


def _sort_place(job: Job) -> tuple[str, Status, int]:
    """Return what a job's place in the sequences depends on, besides its id."""
    return job.owner, job.status, job.created_order
