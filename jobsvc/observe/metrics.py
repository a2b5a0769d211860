"""Define all Prometheus metrics, in a separate registry; no label names a job, token or owner.

The service creates one Metrics and passes it on. Metrics can be updated from any thread, except requests,
which only the event loop's thread counts and exposes.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from jobsvc import __version__
from jobsvc.domain.job import Status
from jobsvc.domain.status_record import BadRecord
from jobsvc.observe.download_log import Outcome
from jobsvc.observe.process_metrics import ProcessMetrics
from jobsvc.observe.request_metrics import RequestMetrics

BUDGETS: Final = ("status", "list", "events", "logs", "download", "auth-failures")
"""The budgets that can cause a request to be refused."""

DIGESTS: Final = ("computed", "changed", "failed", "turned-away")
"""Outcomes of a digest request."""
SLOT_LIMITS: Final = ("token", "owner", "all")
"""The levels at which concurrent downloads, and concurrent event streams and long polls, are limited."""

STREAMS: Final = ("job", "jobs", "log")
"""The subjects of event streams."""

CLOSE_REASONS: Final = ("header-timeout", "idle-timeout", "send-timeout", "evicted")
"""Reasons for which the service closes a connection."""

_RECONCILE_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """All metrics, as attributes of prometheus_client's types; label values known in advance start at 0."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        # Without `_created`, the creation time of each series: a third of the text, and unused.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._clock = clock
        self._storage_answered = clock()
        tally = RequestMetrics()
        self.registry.register(tally)
        self.observe_request = tally.observe
        """observe_request(route, method, code, seconds): count one response; takes about 1 µs."""
        self._downloads()
        self._digests()
        self._index()
        self._storage()
        self._access()
        self._live()
        self._connections()
        self.process = ProcessMetrics()
        self.registry.register(self.process)
        info = Info("jobsvc_build", "The program that runs.", registry=self.registry)
        info.info({"version": __version__, "python": platform.python_version()})

    def _counter(self, name: str, told: str, label: str = "", values: tuple[str, ...] = ()) -> Counter:
        counter = Counter(f"jobsvc_{name}", told, (label,) if label else (), registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def _gauge(self, name: str, told: str) -> Gauge:
        return Gauge(f"jobsvc_{name}", told, registry=self.registry)

    def _downloads(self) -> None:
        self.downloads_in_progress = self._gauge("downloads_in_progress", "Downloads under way.")
        self.downloads_refused = self._counter(
            "downloads_refused_total", "Downloads and logs over a limit, by whose.", "limit", SLOT_LIMITS
        )
        self.download_bytes = self._counter("download_bytes_total", "Bytes of outputs handed to clients.")
        self.download_throttled = self._counter(
            "download_throttled_seconds_total", "Time that downloads waited because of the download rate."
        )
        self.downloads = self._counter(
            "downloads_total", "Downloads that ended, by how.", "outcome", tuple(Outcome)
        )

    def _digests(self) -> None:
        self.digests = self._counter(
            "digests_total",
            "Digests of outputs that were wished for, by what came of it.",
            "outcome",
            DIGESTS,
        )
        self.digest_bytes = self._counter("digest_bytes_total", "Bytes of outputs that were hashed.")
        self.digests_waiting = self._gauge("digests_waiting", "Digests that are computed or wait for it.")
        self.digests_known = self._gauge("digests_known", "Digests that are kept.")
        self.digest_file_errors = self._counter(
            "digest_file_errors_total",
            "Lines of the digest file that could not be written, or made no sense.",
        )

    def _index(self) -> None:
        self.records_unreadable = self._counter(
            "records_unreadable_total",
            "Reads of a status.json that made no job, by why.",
            "reason",
        )
        self.names_ignored = self._gauge("names_ignored", "Names in the jobs root that can't be jobs.")
        self.index_jobs = Gauge(
            "jobsvc_index_jobs", "Jobs known, by status.", ("status",), registry=self.registry
        )
        for status in Status:
            self.index_jobs.labels(status)
        self.watcher_restarts = self._counter("watcher_restarts_total", "Times the watcher was started anew.")
        self.watcher_missed_events = self._counter(
            "watcher_missed_events_total", "Changes that were found without an event."
        )
        self.watcher_unknown_lines = self._counter(
            "watcher_unknown_lines_total", "Lines of the watcher's process that are not part of its protocol."
        )
        self.workers_failed = self._counter(
            "index_workers_failed_total", "Worker processes that failed while they read new jobs."
        )
        self.reconcile_duration = Histogram(
            "jobsvc_reconcile_duration_seconds",
            "Time of one comparison of the whole root with the index.",
            buckets=_RECONCILE_BUCKETS,
            registry=self.registry,
        )

    def _storage(self) -> None:
        self.storage_unavailable = self._counter(
            "storage_unavailable_total", "Calls that storage did not answer, or answered with a fault."
        )
        self.storage_stuck = self._gauge(
            "storage_threads_stuck", "Threads that wait for storage unduly long."
        )
        self._gauge(
            "storage_last_answer_age_seconds", "Time since storage last answered; since the start, if never."
        ).set_function(lambda: self._clock() - self._storage_answered)

    def _access(self) -> None:
        self.token_file_errors = self._counter(
            "token_file_errors_total", "Times the token file could not be taken; the last good one stayed."
        )
        self.token_label_errors = self._counter(
            "token_label_errors_total", "Times the labels of tokens could not be read; they have none then."
        )
        self.tokens_expiring_soon = self._gauge(
            "tokens_expiring_soon", "Valid tokens that expire within 14 days."
        )
        self.token_use_errors = self._counter(
            "token_use_errors_total", "Failed writes of when tokens were last used."
        )
        self.auth_failures = self._counter("auth_failures_total", "Requests with a missing or wrong token.")
        self.rate_limited = self._counter("rate_limited_total", "Requests over a budget.", "budget", BUDGETS)
        self.download_log_errors = self._counter(
            "download_log_errors_total", "Lines that the download log lost."
        )

    def _live(self) -> None:
        self.log_bytes = self._counter("log_bytes_total", "Bytes of logs handed to clients.")
        self.requests_waiting = self._gauge("requests_waiting", "Requests that wait for a job to change.")
        self.logs_followed = self._gauge("logs_followed", "Logs that somebody follows.")
        self.events_merged = self._counter(
            "events_merged_total", "Changes that a reader of events was not told of, but of a later one."
        )
        self.streams = Gauge(
            "jobsvc_event_streams",
            "Event streams open, by what they tell of.",
            ("of",),
            registry=self.registry,
        )
        for what in STREAMS:
            self.streams.labels(what)
        self.streams_refused = self._counter(
            "streams_refused_total", "Streams and waits over a limit, by whose.", "limit", SLOT_LIMITS
        )

    def _connections(self) -> None:
        self.connections = self._gauge("connections", "Open connections.")
        self.connections_refused = self._counter(
            "connections_refused_total", "Connections above the limit; they serve a probe or answer 503."
        )
        self.connections_closed = self._counter(
            "connections_closed_total",
            "Connections that the service closed, by why.",
            "reason",
            CLOSE_REASONS,
        )
        self.accept_errors = self._counter(
            "accept_errors_total", "Connections that could not be accepted for want of descriptors or memory."
        )

    def storage_answered(self) -> None:
        """Record that storage responded just now; a response that something is absent counts too."""
        self._storage_answered = self._clock()

    def record_unreadable(self, wrong: BadRecord) -> None:
        """Count an invalid record, by the part of it that was wrong."""
        self.records_unreadable.labels(wrong.reason).inc()

    def exposition(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus' text format, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
