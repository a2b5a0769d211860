"""Build the job index from its parts (watcher, refresh queue, periodic tasks) and run their tasks.

All reads run in the StorageExecutor's threads, in batches that release their thread after 0.1 s. No request
waits for the background tasks started here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from enum import StrEnum
from functools import partial
from time import monotonic
from typing import Final

import structlog

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.domain.job import Status
from jobsvc.domain.status_record import BadRecord
from jobsvc.index import index_metrics
from jobsvc.index.catalogue.entries import Catalogue, Entry
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.catalogue.index_stats import IndexStats
from jobsvc.index.catalogue.root_check import RootCheck
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.index.queries.listing import Listing
from jobsvc.index.queries.log_tail_cache import LogTailCache
from jobsvc.index.scan.mount_watch import MountWatch
from jobsvc.index.scan.periodic import RECONCILE_INTERVAL_S, ROOT_CHECK_INTERVAL_S, IndexParts, PeriodicTasks
from jobsvc.index.scan.refresh_queue import WORKERS, RefreshQueue
from jobsvc.index.scan.root_names import RootNames
from jobsvc.index.watch.registry import WatchRegistry
from jobsvc.index.watch.supervisor import (
    HEARTBEAT_INTERVAL_S,
    MAX_GROUP_SIZE,
    EventKind,
    WatcherSupervisor,
    WatchEvent,
)
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.filesystem.mounts import file_system, is_local, watch_limit
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import is_job_id

log = structlog.get_logger("jobsvc.index")

LATE_HEARTBEAT_S: Final = 1.0
"""Seconds between two heartbeats above which the event queue may have overflowed unnoticed."""
STOP_TIMEOUT_S: Final = 3.0


class Watch(StrEnum):
    """How changes are detected; AUTO selects EVENTS on local file systems, else POLL."""

    AUTO = "auto"
    EVENTS = "events"
    POLL = "poll"


class JobIndex:
    """The catalogue and the tasks that keep it up to date. Event loop only."""

    def __init__(  # noqa: PLR0913 - keyword arguments, constructed in one place
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        *,
        max_age: float = 1.0,
        poll_interval: float = 1.0,
        watch: Watch | str = Watch.AUTO,
        reconcile_interval: float = RECONCILE_INTERVAL_S,
        on_unreadable: Callable[[str, BadRecord], None] | None = None,
        wary: Callable[[JobSnapshot], bool] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.catalogue = Catalogue()
        self.stats = IndexStats()
        self.mode = Watch(watch)
        """The mode requested; the `_watch` task replaces AUTO once the file system type is known."""
        self._disk = disk
        self._root = root
        self._poll_interval = poll_interval
        self._logged = on_unreadable
        self._metrics = metrics
        self._coverage = WatchCoverage(self._on_missed_event)
        self._root_check = RootCheck()
        self.listing = Listing(self.catalogue, self._coverage, self.stats)
        limit = int(watch_limit() * 0.9)
        pulse = max(min(HEARTBEAT_INTERVAL_S, max_age / 4), 0.05)
        chunk = min(MAX_GROUP_SIZE, limit // 32)
        self._watcher = WatcherSupervisor(root.path, self, pulse=pulse, chunk=chunk)
        self.registry = WatchRegistry(
            self.catalogue, self._watcher.watch, self._refresh, limit,
            batch=chunk, lagging=lambda: self._refresh_queue.is_backlogged,
        )  # fmt: skip
        self.registry.deferred = True
        self.freshness = Freshness(
            disk, root, self.catalogue, max_age, monotonic, self._on_unreadable,
            coverage=self._coverage, presence=self._root_check, settle=self.registry.ensure_watched,
            wary=wary,
            recheck=lambda job_id: self._refresh_queue.refresh_now([job_id]),
        )  # fmt: skip
        self.log_tails = LogTailCache(disk, root, self.freshness)
        self._refresh_queue = RefreshQueue(
            disk, root, self.catalogue, self.freshness, self.registry.resume,
            on_worker_failed=None if metrics is None else metrics.workers_failed.inc,
        )  # fmt: skip
        parts = IndexParts(
            disk, root, self.catalogue, self._refresh_queue, self._coverage, self._root_check,
            self.registry, self.stats, metrics,
        )  # fmt: skip
        self._root_names = RootNames(
            disk, root, self.catalogue,
            freshness=self.freshness, looks=self._refresh_queue, figures=self.stats,
            poll_interval=poll_interval, is_needed=self._is_listing_needed,
        )  # fmt: skip
        self._periodic = PeriodicTasks(
            parts,
            poll_interval=poll_interval,
            reconcile_interval=reconcile_interval,
            # Coverage extends only to the last root check, so checks must come more often than max_age.
            probe_interval=max(min(ROOT_CHECK_INTERVAL_S, max_age / 4), 0.05),
            to_poll=self._root_names.to_poll,
            is_watched=self._is_watched,
            on_return=self._watcher.restart,
        )
        self._mount_watch = MountWatch(disk, root, self.catalogue, self.on_events)
        self.ready = self._periodic.ready
        """Set once the first index is complete."""
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        if metrics is not None:
            index_metrics.register(self, metrics)

    @property
    def storage_unavailable_reason(self) -> str | None:
        """Why the storage is considered unavailable; None while it is available."""
        return self._root_check.unavailable_reason

    @property
    def is_covered(self) -> bool:
        """Whether the watcher is healthy, so that the absence of events proves that nothing changed."""
        return self._coverage.valid_until > self._coverage.start

    @property
    def watcher_pid(self) -> int | None:
        """The watcher process's id; None if it is not running."""
        return self._watcher.pid

    @asynccontextmanager
    async def running(self) -> AsyncIterator[JobIndex]:
        """Run the index while the block runs; stop it afterwards."""
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    async def start(self) -> None:
        """Start all tasks without waiting; `ready` is set when the first index is complete."""
        rounds = self._periodic
        jobs: list[Callable[[], Awaitable[None]]] = [
            self._watch, rounds.reconcile, rounds.poll, rounds.check_root, self._root_names.check,
            self._mount_watch.run,
        ]  # fmt: skip
        jobs += [self._refresh_queue.work] * WORKERS
        self._tasks = [asyncio.create_task(self._repeat(job)) for job in jobs]

    async def stop(self) -> None:
        """Cancel all tasks; wait at most STOP_TIMEOUT_S for them, even if storage hangs."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_TIMEOUT_S)
        self._tasks.clear()

    def on_ready(self) -> None:
        """Start coverage: the root is watched. Reconcile once to find what changed before."""
        self._coverage.begin(monotonic())
        self.registry.start()
        self._periodic.reconcile_after_watching()

    def on_watched(self, number: int) -> None:
        """Have the jobs of batch `number` read again: they are covered from that read on."""
        self.registry.batch_watched(number)

    def on_limit_reached(self, number: int) -> None:
        """Limit the watches to those in use: the system did not allow those of batch `number`."""
        self.registry.limit_was_reached(number)

    def on_events(self, hints: list[WatchEvent]) -> None:
        """Queue the jobs of these events for an immediate refresh; until it is done they are not covered."""
        now = monotonic()
        for happened, rest in hints:
            job_id, _, name = rest.partition("/")
            entry = self.catalogue.get(job_id)
            if not is_job_id(job_id) or (happened is EventKind.GROWN and not _shows_its_log(entry)):
                continue
            self._coverage.record_event(job_id)
            if entry is not None:
                entry.last_event_at = max(entry.last_event_at, now)
            self._record_events(happened, job_id, name)
            self._refresh_queue.refresh_now([job_id])

    def _record_events(self, happened: EventKind, job_id: str, name: str) -> None:
        if happened is EventKind.NEW:
            self.registry.job_added(job_id)
        elif happened is EventKind.MOVED:
            self.registry.moved(job_id, name)
        elif happened is EventKind.UNWATCHABLE:
            self.registry.unwatchable(job_id)
        elif happened not in {EventKind.CHANGED, EventKind.GROWN}:
            self.registry.job_removed(job_id)

    def on_heartbeat(self, moment: float) -> None:
        """Extend coverage to `moment` (monotonic seconds): all earlier events were delivered.

        If the previous heartbeat was more than LATE_HEARTBEAT_S earlier, restart coverage and reconcile.
        """
        if self._coverage.record_heartbeat(moment) > LATE_HEARTBEAT_S:
            self._coverage.begin(monotonic())
            self._periodic.reconcile_soon()

    def on_unknown_line(self) -> None:
        """Count a line from the watcher process that is not part of its protocol."""
        if self._metrics is not None:
            self._metrics.watcher_unknown_lines.inc()

    def on_lost(self) -> None:
        """End coverage: the watcher process is gone, so only what is read from disk is current."""
        self._coverage.end()
        self.registry.stop()
        if not self._stopping:
            self.stats.watcher_restarts += 1
            if self._metrics is not None:
                self._metrics.watcher_restarts.inc()

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` forever; after an exception, wait for the poll interval.

        StorageUnavailable is expected; any other exception is a bug and is logged.
        """
        while True:
            try:
                await work()
            except StorageUnavailable:
                await asyncio.sleep(self._poll_interval)
            except Exception:
                log.exception("index-fault", work=getattr(work, "__name__", "?"))
                await asyncio.sleep(self._poll_interval)

    async def _watch(self) -> None:
        kind = await self._disk.run_metadata("*watch", partial(file_system, self._root.path))
        self._refresh_queue.is_local = is_local(kind)
        if self.mode is Watch.AUTO:
            self.mode = Watch.EVENTS if is_local(kind) else Watch.POLL
        log.info("watch", mode=self.mode.value, file_system=kind)
        if self.mode is Watch.EVENTS:
            await self._watcher.run()
        await asyncio.Event().wait()

    def _is_watched(self) -> bool:
        """Return whether events are used and report all changes: inotify sees only those of this host."""
        return self.mode is Watch.EVENTS and self._refresh_queue.is_local

    def _is_listing_needed(self) -> bool:
        """Return whether new and removed jobs can be found only by listing the root."""
        if self.storage_unavailable_reason is not None or not self.ready.is_set():
            return False
        return not (self._is_watched() and self.is_covered)

    def _refresh(self, job_ids: Iterable[str], *, urgent: bool) -> None:
        if urgent:
            self._refresh_queue.refresh_now(job_ids)
        else:
            self._refresh_queue.refresh_later(job_ids)

    def _on_missed_event(self, job_id: str) -> None:
        """Restart the watcher: it missed an event, so it may miss others."""
        log.warning("event-missed", job=job_id)
        self.stats.missed_events += 1
        if self._metrics is not None:
            self._metrics.watcher_missed_events.inc()
        self._watcher.restart()

    def _on_unreadable(self, job_id: str, wrong: BadRecord) -> None:
        self.stats.unreadable_records += 1
        if self._logged is not None:
            self._logged(job_id, wrong)


def _shows_its_log(entry: Entry | None) -> bool:
    """Return whether the job's log is part of its representation: only if the job has failed.

    Rendering jobs write logs too, but their events are ignored.
    """
    return entry is not None and entry.snapshot.job.status is Status.FAILED
