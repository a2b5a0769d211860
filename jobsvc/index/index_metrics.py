"""Register the Prometheus gauges of the job index."""

from __future__ import annotations

from functools import partial
from time import monotonic

from prometheus_client import Gauge

from jobsvc.domain.job import Status
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.job_index import JobIndex
from jobsvc.observe.metrics import Metrics


def register(index: JobIndex, metrics: Metrics) -> None:
    """Add gauges to `metrics` that read `index` at every scrape."""
    started_at = monotonic()
    for status in Status:
        metrics.index_jobs.labels(status).set_function(partial(_count, index.catalogue, status))
    metrics.names_ignored.set_function(lambda: index.stats.ignored_names)
    gauges = {
        "records_unreadable_now": (
            "Jobs whose record is unreadable.",
            lambda: len(index.catalogue.unreadable),
        ),
        "jobs_stalled": (
            "Unfinished jobs whose record was not written for --stalled-after.",
            lambda: len(index.stalled),
        ),
        "reconcile_age_seconds": (
            "Time since the last reconcile; since the start, if there was none.",
            lambda: monotonic() - (index.stats.reconciled_at or started_at),
        ),
        "index_complete": ("1 once the first index is complete.", index.ready.is_set),
        "storage_missing": (
            "1 while the jobs root is missing or unreadable.",
            lambda: index.storage_unavailable_reason is not None,
        ),
        "watcher_wanted": (
            "1 if inotify events are used, 0 if only polling.",
            lambda: index.mode is WatchMode.EVENTS,
        ),
        "watched_directories": ("Watched directories.", lambda: index.registry.limit.used),
        "watch_limit_reached": (
            "1 if directories are left unwatched because of the limit.",
            lambda: index.registry.limit.reached,
        ),
        "watcher_healthy": ("1 while the watcher process reports all changes.", lambda: index.is_covered),
    }
    for name, (description, value) in gauges.items():
        Gauge(f"jobsvc_{name}", description, registry=metrics.registry).set_function(value)


def _count(catalogue: Catalogue, status: Status) -> float:
    return catalogue.counts[status]
