"""Run the periodic tasks: reconcile all jobs, poll unfinished jobs, check the root.

None of them removes a missing job while the state of the root is implausible.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from time import monotonic, thread_time
from typing import Final

import structlog

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.domain.job import Status
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.index_stats import IndexStats
from jobsvc.index.catalogue.root_check import RootCheck
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.index.scan import reconcile
from jobsvc.index.scan.reconcile import Comparison
from jobsvc.index.scan.refresh_queue import RefreshQueue
from jobsvc.index.scan.root_names import LISTING_TIMEOUT_S
from jobsvc.index.watch.registry import WatchRegistry
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import RootScan, RootStat, list_job_ids, stat_root
from jobsvc.storage.jobs.snapshot import JobSnapshot

log = structlog.get_logger("jobsvc.index")

ROOT_CHECK_INTERVAL_S: Final = 0.5
RECONCILE_INTERVAL_S: Final = 60.0
RECONCILE_TIME_SHARE: Final = 0.05
"""Maximum share of time for reconciling; lengthens the interval up to MAX_RECONCILE_INTERVAL_S."""
MAX_RECONCILE_INTERVAL_S: Final = 600.0
POLL_CPU_SHARE: Final = 0.04
"""Maximum share of one CPU for polling; lengthens the poll interval."""
UNWATCHED_CPU_SHARE: Final = 0.02
"""Maximum share of one CPU for reconciling where no watcher reports changes."""
UNWATCHED_TIME_SHARE: Final = 0.2
"""The same as a share of time, most of which is spent waiting for network storage."""
AWAIT_OUTPUT_S: Final = 600.0
"""Seconds for which a completed job without its output is polled."""


@dataclass(frozen=True, slots=True)
class IndexParts:
    """The parts of a JobIndex that its periodic tasks use."""

    disk: StorageExecutor
    root: JobsRoot
    catalogue: Catalogue
    refresh_queue: RefreshQueue
    coverage: WatchCoverage
    root_check: RootCheck
    registry: WatchRegistry
    stats: IndexStats
    metrics: Metrics | None


class PeriodicTasks:
    """The periodic tasks: each call of `reconcile`, `poll` or `check_root` does one run and one wait."""

    def __init__(
        self,
        parts: IndexParts,
        *,
        poll_interval: float,
        reconcile_interval: float,
        probe_interval: float,
        to_poll: Callable[[], list[str]],
        is_watched: Callable[[], bool],
        on_return: Callable[[], None],
    ) -> None:
        """`to_poll` returns job ids to poll besides those of unfinished jobs.

        `is_watched` returns whether the watcher is used and reports all changes on this storage. `on_return`
        is called when storage is available again, or the root is another directory. Intervals are in seconds.
        """
        self._parts = parts
        self._to_poll = to_poll
        self._is_watched = is_watched
        self._poll_interval = poll_interval
        self._reconcile_interval = reconcile_interval
        self._probe_interval = probe_interval
        self._on_return = on_return
        self.ready = asyncio.Event()
        """Set once the first index is complete."""
        self._due = asyncio.Event()
        self._names_only = False
        """Whether the next reconcile reads only new jobs and those missing from the listing."""
        self._poll_cost = 0.0
        self._reconcile_cpu_seconds = 0.0
        self._outputs_awaited: dict[str, float] = {}
        self._unknown_names: set[str] = set()
        """Names in the root for which no job was found, or whose job was removed."""
        self._listed_since: float | None = None
        parts.catalogue.subscribe(self._on_change)

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
        names_alone, self._names_only = self._names_only, False
        if self._parts.root_check.unavailable_reason is None:
            # A separate method, so that the listing (100,000 names) is freed before the wait.
            await self._reconcile_once(names_alone=names_alone)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._reconcile_pause()):
                await self._due.wait()

    def _reconcile_pause(self) -> float:
        """Return the seconds until the next reconcile.

        Without a watcher only a reconcile finds changes of finished jobs, so it runs more often if it is
        cheap, as it is for few jobs.
        """
        seconds = self._parts.stats.reconcile_seconds
        rarely = seconds / RECONCILE_TIME_SHARE
        if not self._is_watched():
            by_cpu = self._reconcile_cpu_seconds / UNWATCHED_CPU_SHARE
            often = max(seconds / UNWATCHED_TIME_SHARE, by_cpu, self._poll_interval)
            if often < self._reconcile_interval:
                return often
            rarely = max(rarely, by_cpu)
        return max(self._reconcile_interval, min(rarely, MAX_RECONCILE_INTERVAL_S))

    async def _reconcile_once(self, *, names_alone: bool) -> None:
        begun = monotonic()
        compare = partial(self._compare, names_alone=names_alone)
        scan, found, cpu_seconds = await self._parts.disk.run_metadata("*scan", compare, LISTING_TIMEOUT_S)
        self._apply_listing(scan, found)
        known = [*found.missing_from_listing, *found.known]
        self._reconcile_cpu_seconds = cpu_seconds + await self._parts.refresh_queue.refresh_all(
            "*scan", known, found.new
        )
        if not self._is_watched():
            await self._parts.disk.run_metadata("*scan", partial(self._note_inodes, scan), LISTING_TIMEOUT_S)
        self._record_reconcile(begun, found)

    def _compare(self, *, names_alone: bool) -> tuple[RootScan, Comparison, float]:
        before = thread_time()
        scan = list_job_ids(self._parts.root.path)
        found = reconcile.compare(scan.ids, self._parts.catalogue.entries, names_alone=names_alone)
        return scan, found, thread_time() - before

    def _note_inodes(self, scan: RootScan) -> None:
        reconcile.note_inodes(scan, self._parts.catalogue.entries)

    def _apply_listing(self, scan: RootScan, found: Comparison) -> None:
        """Apply a listing; a new name without an event since the last listing may be a missed event."""
        self._parts.stats.ignored_names = scan.ignored
        self._parts.registry.listed(found.names)
        self._parts.catalogue.prune_unlisted(found.names)
        if self._listed_since == self._parts.coverage.start:
            now, entries = monotonic(), self._parts.catalogue.entries
            for job_id in found.new:
                if not (
                    job_id in entries or job_id in self._unknown_names or self._parts.registry.knows(job_id)
                ):
                    self._parts.coverage.record_unannounced(job_id, now)

    def _record_reconcile(self, begun: float, found: Comparison) -> None:
        now, entries = monotonic(), self._parts.catalogue.entries
        self._parts.stats.reconciled_at, self._parts.stats.reconcile_seconds = now, now - begun
        if self._parts.metrics is not None:
            self._parts.metrics.reconcile_duration.observe(now - begun)
        strangers = chain(found.new, self._unknown_names & found.names)
        self._unknown_names = {job_id for job_id in strangers if job_id not in entries}
        self._parts.registry.watch_names(self._unknown_names)
        if begun >= self._parts.coverage.start:
            self._listed_since = self._parts.coverage.start
        if not self.ready.is_set():
            log.info("indexed", jobs=len(self._parts.catalogue), seconds=round(now - begun, 3))
            self.ready.set()
        if self._parts.registry.deferred and not self._names_only:  # a names-only pass goes first: faster
            self._parts.registry.watch_deferred()

    async def poll(self) -> None:
        """Wait, then read the jobs that can change.

        The wait is the poll interval, or longer so that polling takes at most POLL_CPU_SHARE.
        """
        await asyncio.sleep(max(self._poll_interval, self._poll_cost / POLL_CPU_SHARE))
        self._poll_cost = 0
        if self._parts.root_check.unavailable_reason is None:
            ids = [*self._parts.catalogue.unfinished(), *self._awaiting_output(), *self._to_poll()]
            self._poll_cost = await self._parts.refresh_queue.refresh_all("*poll", ids)

    def _awaiting_output(self) -> list[str]:
        now = monotonic()
        for job_id in [job_id for job_id, until in self._outputs_awaited.items() if until < now]:
            del self._outputs_awaited[job_id]
        return list(self._outputs_awaited)

    async def check_root(self) -> None:
        """Check once whether the root is available, then wait for the interval.

        If it is available again, or is another directory, call `on_return` and reconcile everything.
        """
        asked = monotonic()
        try:
            place = await self._parts.disk.run_metadata("*probe", partial(stat_root, self._parts.root.path))
            self._apply_root_check(place, await self._unavailable_reason(place), asked)
        except StorageUnavailable as silent:
            self._parts.root_check.mark_unavailable(silent.reason or silent.detail, asked)
        await asyncio.sleep(self._probe_interval)

    def _apply_root_check(self, place: RootStat, reason: str | None, asked: float) -> None:
        self._parts.stats.storage_answered_at = asked
        if self._parts.metrics is not None:
            self._parts.metrics.storage_answered()
        if reason is not None:
            self._parts.root_check.mark_unavailable(reason, asked)
        else:
            if self._parts.root_check.accept(place):
                self._on_return()
                self.reconcile_soon()
            self._parts.coverage.record_root_ok(asked)

    async def _unavailable_reason(self, place: RootStat) -> str | None:
        """Return why this state of the root is implausible; None if it is plausible.

        If storage was unavailable and the root now contains a known job, it is the same storage mounted
        again and is accepted. Raises StorageUnavailable.
        """
        presence, entries = self._parts.root_check, self._parts.catalogue.entries
        reason = presence.problem(place, len(entries))
        if reason is None or presence.unavailable_reason is None:
            return reason
        scan = await self._parts.disk.run_metadata(
            "*probe", partial(list_job_ids, self._parts.root.path), LISTING_TIMEOUT_S
        )
        return None if any(job_id in entries for job_id in scan.ids) else reason

    def _on_change(self, job_id: str, _before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        """Poll a completed job without output for AWAIT_OUTPUT_S: the output often appears later."""
        if after is not None and after.job.status is Status.COMPLETED and not after.has_output:
            self._outputs_awaited[job_id] = monotonic() + AWAIT_OUTPUT_S
        else:
            self._outputs_awaited.pop(job_id, None)
        if after is None:
            self._unknown_names.add(job_id)
