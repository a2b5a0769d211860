"""Compare all jobs with the disk, at the start, at an interval and on request. Event loop only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from itertools import chain
from time import monotonic, thread_time, time
from typing import Final

import structlog

from jobsvc.index.catalogue.change_journal import ChangeJournal
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.index_stats import IndexStats
from jobsvc.index.catalogue.root_check import RootCheck
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.index.scan import listing_comparison
from jobsvc.index.scan.listing_comparison import Comparison
from jobsvc.index.scan.refresher import Refresher
from jobsvc.index.scan.root_names import LISTING_TIMEOUT_S
from jobsvc.index.watch.registry import WatchRegistry
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import RootScan, list_job_ids
from jobsvc.storage.jobs.snapshot import JobSnapshot

log = structlog.get_logger("jobsvc.index")

RECONCILE_INTERVAL_S: Final = 60.0
RECONCILE_TIME_SHARE: Final = 0.05
"""Maximum share of time for reconciling; lengthens the interval up to MAX_RECONCILE_INTERVAL_S."""
MAX_RECONCILE_INTERVAL_S: Final = 600.0
UNWATCHED_CPU_SHARE: Final = 0.02
"""Maximum share of one CPU for reconciling where no watcher reports changes."""
UNWATCHED_TIME_SHARE: Final = 0.2
"""The same as a share of time, most of which is spent waiting for network storage."""


class Reconciler:
    """List the root, read the jobs that are new or known, and forget what is gone."""

    def __init__(  # noqa: PLR0913 - keyword arguments, constructed in one place
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        catalogue: Catalogue,
        *,
        journal: ChangeJournal,
        refresher: Refresher,
        coverage: WatchCoverage,
        root_check: RootCheck,
        registry: WatchRegistry,
        stats: IndexStats,
        metrics: Metrics,
        poll_interval: float,
        is_watched: Callable[[], bool],
    ) -> None:
        """`is_watched` returns whether the watcher is used and reports all changes on this storage.

        `poll_interval` is in seconds.
        """
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._journal = journal
        self._refresher = refresher
        self._coverage = coverage
        self._root_check = root_check
        self._registry = registry
        self._stats = stats
        self._metrics = metrics
        self._poll_interval = poll_interval
        self._is_watched = is_watched
        self.ready = asyncio.Event()
        """Set once the first index is complete."""
        self._due = asyncio.Event()
        self._names_only = False
        """Whether the next reconcile reads only new jobs and those missing from the listing."""
        self._cpu_seconds = 0.0
        """CPU time of the last reconcile."""
        self._unknown_names: set[str] = set()
        """Names in the root for which no job was found, or whose job was removed."""
        self._listed_since: float | None = None
        """Start of the coverage in which the last listing was made; None before the first such listing."""
        catalogue.subscribe(self._on_change)

    def reconcile_soon(self) -> None:
        """Start the next full reconcile at once."""
        self._names_only = False
        self._due.set()

    def reconcile_after_watching(self) -> None:
        """Start the next reconcile at once, because the root has only now become watched.

        During the first index it compares names only: each job is read once more when it is watched.
        """
        self._names_only = not self.ready.is_set()
        self._due.set()

    async def reconcile(self) -> None:
        """Reconcile unless storage is unavailable, then wait for the interval or an earlier request."""
        self._due.clear()
        names_only, self._names_only = self._names_only, False
        if self._root_check.unavailable_reason is None:
            # A separate method, so that the listing (100,000 names) is freed before the wait.
            await self._reconcile_once(names_only=names_only)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause()):
                await self._due.wait()

    def _pause(self) -> float:
        """Return the seconds until the next reconcile.

        Without a watcher only a reconcile finds changes of finished jobs, so it runs more often if it is
        cheap, as it is for few jobs.
        """
        seconds = self._stats.reconcile_seconds
        longest = seconds / RECONCILE_TIME_SHARE
        if not self._is_watched():
            by_cpu = self._cpu_seconds / UNWATCHED_CPU_SHARE
            shortest = max(seconds / UNWATCHED_TIME_SHARE, by_cpu, self._poll_interval)
            if shortest < RECONCILE_INTERVAL_S:
                return shortest
            longest = max(longest, by_cpu)
        return max(RECONCILE_INTERVAL_S, min(longest, MAX_RECONCILE_INTERVAL_S))

    async def _reconcile_once(self, *, names_only: bool) -> None:
        started_at, wall_time = monotonic(), time()
        compare = partial(self._compare, names_only=names_only)
        scan, result, cpu_seconds = await self._disk.run_metadata("*scan", compare, LISTING_TIMEOUT_S)
        self._apply_listing(scan, result)
        known = [*result.missing_from_listing, *result.known]
        self._cpu_seconds = cpu_seconds + await self._refresher.refresh_all("*scan", known, result.new)
        if not self._is_watched():
            await self._disk.run_metadata("*scan", partial(self._note_inodes, scan), LISTING_TIMEOUT_S)
        self._record_reconcile(started_at, result)
        found_all = self._refresher.is_settled and not names_only
        self._journal.note_reconciled(wall_time, found_all=found_all)

    def _compare(self, *, names_only: bool) -> tuple[RootScan, Comparison, float]:
        before = thread_time()
        scan = list_job_ids(self._root.path)
        result = listing_comparison.compare(scan.ids, self._catalogue.entries, names_only=names_only)
        return scan, result, thread_time() - before

    def _note_inodes(self, scan: RootScan) -> None:
        listing_comparison.note_inodes(scan, self._catalogue.entries)

    def _apply_listing(self, scan: RootScan, result: Comparison) -> None:
        """Apply a listing; a new name without an event since the last listing may be a missed event."""
        self._stats.ignored_names = scan.ignored
        self._registry.listed(result.names)
        self._catalogue.prune_unreadable(result.names)
        if self._listed_since == self._coverage.start:
            now, entries = monotonic(), self._catalogue.entries
            for job_id in result.new:
                if not (job_id in entries or job_id in self._unknown_names or self._registry.knows(job_id)):
                    self._coverage.note_unannounced(job_id, now)

    def _record_reconcile(self, started_at: float, result: Comparison) -> None:
        now, entries = monotonic(), self._catalogue.entries
        self._stats.reconciled_at, self._stats.reconcile_seconds = now, now - started_at
        self._metrics.reconcile_duration.observe(now - started_at)
        names = chain(result.new, self._unknown_names & result.names)
        self._unknown_names = {job_id for job_id in names if job_id not in entries}
        self._registry.watch_names(self._unknown_names)
        if started_at >= self._coverage.start:
            self._listed_since = self._coverage.start
        if not self.ready.is_set():
            log.info("indexed", jobs=len(self._catalogue), seconds=round(now - started_at, 3))
            self.ready.set()
        if self._registry.deferred and not self._names_only:  # a names-only pass goes first: faster
            self._registry.watch_deferred()

    def _on_change(self, job_id: str, _before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        if after is None:
            self._unknown_names.add(job_id)
