"""Builds the parts of an index as the service does, with as much left out as a test needs not."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from jobsvc.domain.status_record import BadRecord
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index import index_metrics
from jobsvc.index.catalogue.catalogue_updater import CatalogueUpdater
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.catalogue.index_stats import IndexStats
from jobsvc.index.catalogue.root_check import RootCheck
from jobsvc.index.catalogue.shared_reads import SharedReads
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.index.job_index import JobIndex
from jobsvc.index.queries.listing import Listing
from jobsvc.index.scan.refresh_queue import RefreshQueue
from jobsvc.index.scan.refresher import Refresher
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot


def make_index(
    disk: StorageExecutor,
    root: JobsRoot,
    watch: WatchMode,
    *,
    max_age: float = 1.0,
    poll_interval: float = 1.0,
    stalled_after: float = 900.0,
    metrics: Metrics | None = None,
) -> JobIndex:
    """Build an index whose gauges are registered."""
    metrics = metrics or Metrics()
    index = JobIndex(
        disk,
        root,
        metrics,
        max_age=max_age,
        poll_interval=poll_interval,
        stalled_after=stalled_after,
        watch=watch,
        needs_recheck=lambda _snapshot: False,
    )
    index_metrics.register(index, metrics)
    return index


def metric(index: JobIndex, name: str) -> float:
    """Return the value of a metric without labels."""
    value = index._metrics.registry.get_sample_value(f"jobsvc_{name}")
    assert value is not None
    return value


def make_coverage(needs_recheck: Callable[[JobSnapshot], bool] = lambda _snapshot: False) -> WatchCoverage:
    return WatchCoverage(lambda _job_id: None, needs_recheck)


def make_listing(
    catalogue: Catalogue, coverage: WatchCoverage | None = None, stats: IndexStats | None = None
) -> Listing:
    return Listing(catalogue, coverage or make_coverage(), stats or IndexStats())


class Parts:
    """A catalogue and what reads jobs into it, without a watcher and without background tasks."""

    def __init__(
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        *,
        max_age: float = 1.0,
        clock: Callable[[], float] = monotonic,
        coverage: WatchCoverage | None = None,
        root_check: RootCheck | None = None,
        on_unreadable: Callable[[str, BadRecord], None] = lambda _job_id, _exc: None,
        on_queue_empty: Callable[[], None] = lambda: None,
    ) -> None:
        self.catalogue = Catalogue()
        self.queue = RefreshQueue()
        self.coverage = coverage or make_coverage()
        self.root_check = root_check or RootCheck()
        self.updater = CatalogueUpdater(
            self.catalogue,
            self.coverage,
            self.root_check,
            on_unreadable=on_unreadable,
            ensure_watched=lambda _job_id, _entry: None,
            recheck=lambda _job_id: None,
            clock=clock,
        )
        reads = SharedReads(disk, root, self.catalogue, self.updater, clock)
        self.freshness = Freshness(
            self.catalogue,
            self.updater,
            reads,
            coverage=self.coverage,
            root_check=self.root_check,
            max_age=max_age,
            clock=clock,
        )
        others: dict[str, Any] = {"on_queue_empty": on_queue_empty, "on_worker_failed": lambda: None}
        self.refresher = Refresher(
            disk, root, self.catalogue, updater=self.updater, queue=self.queue, **others
        )
