"""Build the job index from its parts and run their tasks.

All reads run in the StorageExecutor's threads, in batches that release their thread after 0.1 s. No request
waits for the background tasks started here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import structlog

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index.catalogue.catalogue_updater import CatalogueUpdater
from jobsvc.index.catalogue.change_journal import ChangeJournal
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.catalogue.index_stats import IndexStats
from jobsvc.index.catalogue.root_check import RootCheck
from jobsvc.index.catalogue.shared_reads import SharedReads
from jobsvc.index.catalogue.stalled_jobs import StalledJobs
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.index.queries.listing import Listing
from jobsvc.index.queries.log_tail_cache import LogTailCache
from jobsvc.index.scan.mount_watch import MountWatch
from jobsvc.index.scan.poller import Poller
from jobsvc.index.scan.reconciler import Reconciler
from jobsvc.index.scan.refresh_queue import QUEUE_READERS, RefreshQueue
from jobsvc.index.scan.refresher import Refresher
from jobsvc.index.scan.root_monitor import ROOT_CHECK_INTERVAL_S, RootMonitor
from jobsvc.index.scan.root_names import RootNames
from jobsvc.index.watch.registry import WatchRegistry
from jobsvc.index.watch.supervisor import HEARTBEAT_INTERVAL_S, MAX_GROUP_SIZE, WatcherSupervisor
from jobsvc.index.watch.watch_events import WatchEvents
from jobsvc.index.watch.watch_limit import WatchLimit
from jobsvc.index.watch.watch_queue import WatchQueue
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.filesystem.mounts import file_system, is_local, watch_limit
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot

log = structlog.get_logger("jobsvc.index")

STOP_TIMEOUT_S: Final = 3.0


class JobIndex:
    """The catalogue and the tasks that keep it up to date. Event loop only."""

    def __init__(
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        metrics: Metrics,
        *,
        max_age: float,
        poll_interval: float,
        stalled_after: float,
        watch: WatchMode,
        needs_recheck: Callable[[JobSnapshot], bool],
    ) -> None:
        """`needs_recheck` returns whether a snapshot must be checked on disk even while it is watched."""
        self._disk = disk
        self._root = root
        self._metrics = metrics
        self._poll_interval = poll_interval
        self.mode = WatchMode(watch)
        """The mode requested; the `_watch` task replaces AUTO once the file system type is known."""
        # Coverage extends only to the last heartbeat and root check, so these must come more often than
        # max_age.
        interval = max(max_age / 4, 0.05)
        max_watches = int(watch_limit() * 0.9)
        batch_size = min(MAX_GROUP_SIZE, max_watches // 32)

        self.catalogue = catalogue = Catalogue()
        self.stalled = StalledJobs(catalogue, stalled_after)  # before the listeners that use it
        self.journal = journal = ChangeJournal(catalogue)
        self.stats = IndexStats()
        self._coverage = coverage = WatchCoverage(self._on_missed_event, needs_recheck)
        self._root_check = root_check = RootCheck()
        self._queue = queue = RefreshQueue()
        self._watcher = WatcherSupervisor(
            root.path,
            heartbeat_interval=min(HEARTBEAT_INTERVAL_S, interval),
            max_group_size=batch_size,
        )
        watch_queue = WatchQueue(
            catalogue,
            limit := WatchLimit(max_watches),
            self._watcher.watch,
            batch_size=batch_size,
            is_backlogged=lambda: queue.is_backlogged,
        )
        self.registry = WatchRegistry(
            catalogue,
            limit,
            watch_queue,
            refresh_now=queue.refresh_now,
            refresh_later=queue.refresh_later,
        )
        self.updater = CatalogueUpdater(
            catalogue,
            coverage,
            root_check,
            on_unreadable=lambda _job_id, exc: metrics.record_unreadable(exc),
            ensure_watched=self.registry.ensure_watched,
            recheck=lambda job_id: queue.refresh_now([job_id]),
        )
        reads = SharedReads(disk, root, catalogue, self.updater)
        self.freshness = Freshness(
            catalogue, self.updater, reads, coverage=coverage, root_check=root_check, max_age=max_age
        )
        self.listing = Listing(catalogue, coverage, self.stats, self.stalled)
        self.log_tails = LogTailCache(disk, root, self.freshness)

        self._refresher = refresher = Refresher(
            disk,
            root,
            catalogue,
            updater=self.updater,
            queue=queue,
            on_queue_empty=watch_queue.flush_soon,
            on_worker_failed=metrics.workers_failed.inc,
        )
        self._root_names = RootNames(
            disk,
            root,
            catalogue,
            updater=self.updater,
            refresher=refresher,
            stats=self.stats,
            poll_interval=poll_interval,
            is_local=lambda: queue.is_local,
            is_needed=self._is_listing_needed,
        )
        self._reconciler = Reconciler(
            disk,
            root,
            catalogue,
            journal=journal,
            refresher=refresher,
            coverage=coverage,
            root_check=root_check,
            registry=self.registry,
            stats=self.stats,
            metrics=metrics,
            poll_interval=poll_interval,
            is_watched=self._is_watched,
        )
        self._poller = Poller(
            catalogue,
            root_check,
            refresher,
            interval=poll_interval,
            names_to_poll=self._root_names.to_poll,
        )
        self._root_monitor = RootMonitor(
            disk,
            root,
            catalogue,
            root_check=root_check,
            coverage=coverage,
            metrics=metrics,
            interval=min(ROOT_CHECK_INTERVAL_S, interval),
            on_return=self._on_storage_returned,
        )
        self._watch_events = WatchEvents(
            catalogue,
            coverage=coverage,
            registry=self.registry,
            metrics=metrics,
            refresh_now=queue.refresh_now,
            reconcile_names=self._reconciler.reconcile_after_watching,
            reconcile_soon=self._reconciler.reconcile_soon,
        )
        self._mount_watch = MountWatch(disk, root, catalogue, self._watch_events.on_events)
        self.ready = self._reconciler.ready
        """Set once the first index is complete."""
        self._file_system_read = asyncio.Event()
        """Set after the first attempt to find out on which type of file system the root is."""

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
        """Run the index while the block runs; `ready` is set when the first index is complete.

        At the end all tasks are cancelled; the wait for them is limited, because storage may hang.
        """
        works: list[Callable[[], Awaitable[None]]] = [
            self._watch,
            self._reconcile,
            self._poller.poll,
            self._root_monitor.check_root,
            self._root_names.check,
            self._mount_watch.run,
            self.stalled.watch,
        ]
        works += [self._refresher.refresh_queued] * QUEUE_READERS
        tasks = [asyncio.create_task(self._repeat(work)) for work in works]
        try:
            yield self
        finally:
            self._watch_events.stopping = True
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)

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
        try:
            kind = await self._disk.run_metadata("*watch", partial(file_system, self._root.path))
            self._queue.is_local = is_local(kind)
        finally:
            self._file_system_read.set()
        if self.mode is WatchMode.AUTO:
            self.mode = WatchMode.EVENTS if is_local(kind) else WatchMode.POLL
        log.info("watch", mode=self.mode.value, file_system=kind)
        if self.mode is WatchMode.EVENTS:
            await self._watcher.run(self._watch_events)
        await asyncio.Event().wait()

    async def _reconcile(self) -> None:
        # The first index uses worker processes only on a local file system, so this has to be known.
        await self._file_system_read.wait()
        await self._reconciler.reconcile()

    def _is_watched(self) -> bool:
        """Return whether events are used and report all changes: inotify sees only those of this host."""
        return self.mode is WatchMode.EVENTS and self._queue.is_local

    def _is_listing_needed(self) -> bool:
        """Return whether new and removed jobs can be found only by listing the root."""
        if self.storage_unavailable_reason is not None or not self.ready.is_set():
            return False
        return not (self._is_watched() and self.is_covered)

    def _on_storage_returned(self) -> None:
        self._watcher.restart()
        self._reconciler.reconcile_soon()

    def _on_missed_event(self, job_id: str) -> None:
        """Restart the watcher: it missed an event, so it may miss others."""
        log.warning("event-missed", job=job_id)
        self._metrics.watcher_missed_events.inc()
        self._watcher.restart()
