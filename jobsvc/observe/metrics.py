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

BUDGETS: Final = ("status", "list", "events", "logs", "download", "files", "auth-failures")
"""The budgets that can cause a request to be refused."""

DIGESTS: Final = ("computed", "changed", "failed", "turned-away", "received", "malformed")
"""Outcomes of a digest request; the last two are of digests that come from other instances."""
SLOT_LIMITS: Final = ("token", "owner", "all")
"""The levels at which concurrent downloads, and concurrent event streams and long polls, are limited."""

STREAMS: Final = ("job", "jobs", "log")
"""The subjects of event streams."""

KEPT: Final = ("changes", "jobs", "nothing")
"""What was kept since a client's last event: each change, which jobs changed, or neither: all are sent."""

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
        self._live_streams()
        self._connections()
        self.shared_state_up = self._gauge(
            "shared_state_up", "Whether Redis can be used; 0 also without --shared-state."
        )
        self.shared_state_errors = self._counter("shared_state_errors_total", "Calls to Redis that failed.")
        self.process = ProcessMetrics()
        self.registry.register(self.process)
        # Not a label `instance`: Prometheus sets that to the scraped address, and would rename this one.
        self._instance = Info("jobsvc_instance", "Name of this process (--instance).", registry=self.registry)
        info = Info("jobsvc_build", "Version of jobsvc and of Python.", registry=self.registry)
        info.info({"version": __version__, "python": platform.python_version()})

    def _counter(self, name: str, help_text: str, label: str = "", values: tuple[str, ...] = ()) -> Counter:
        counter = Counter(f"jobsvc_{name}", help_text, (label,) if label else (), registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(f"jobsvc_{name}", help_text, registry=self.registry)

    def _downloads(self) -> None:
        self.downloads_in_progress = self._gauge("downloads_in_progress", "Downloads in progress.")
        self.downloads_refused = self._counter(
            "downloads_refused_total", "Downloads and logs refused because of a limit.", "limit", SLOT_LIMITS
        )
        self.download_bytes = self._counter("download_bytes_total", "Bytes of outputs sent to clients.")
        self.download_throttled = self._counter(
            "download_throttled_seconds_total", "Time that downloads waited because of --download-rate."
        )
        self.downloads = self._counter(
            "downloads_total", "Downloads that ended, by outcome.", "outcome", tuple(Outcome)
        )

        self.files_listed = self._counter("files_listed_total", "Files of outputs that were listed on disk.")
        self.archive_bytes = self._counter(
            "archive_bytes_total", "Bytes of archives sent to clients; also in jobsvc_download_bytes_total."
        )
        self.archives_aborted = self._counter(
            "archives_aborted_total",
            "Archives that ended early, by outcome.",
            "outcome",
            tuple(outcome for outcome in Outcome if outcome is not Outcome.COMPLETE),
        )

    def _digests(self) -> None:
        self.digests = self._counter(
            "digests_total",
            "Digests requested, or received from another instance, by outcome.",
            "outcome",
            DIGESTS,
        )
        self.digest_bytes = self._counter("digest_bytes_total", "Bytes of outputs that were hashed.")
        self.digests_waiting = self._gauge("digests_waiting", "Digests that are being computed or queued.")
        self.digests_known = self._gauge("digests_known", "Digests that are stored.")
        self.digest_file_errors = self._counter(
            "digest_file_errors_total",
            "Lines of the digest file that could not be written or were invalid.",
        )

    def _index(self) -> None:
        self.records_unreadable = self._counter(
            "records_unreadable_total",
            "Reads of a status.json that resulted in no job, by reason.",
            "reason",
        )
        self.names_ignored = self._gauge("names_ignored", "Names in the jobs root that are not job ids.")
        self.index_jobs = Gauge(
            "jobsvc_index_jobs", "Jobs in the index, by status.", ("status",), registry=self.registry
        )
        for status in Status:
            self.index_jobs.labels(status)
        self.watcher_restarts = self._counter("watcher_restarts_total", "Restarts of the watcher process.")
        self.watcher_missed_events = self._counter(
            "watcher_missed_events_total", "Changes that were found without an event."
        )
        self.watcher_unknown_lines = self._counter(
            "watcher_unknown_lines_total", "Lines from the watcher process that are not part of its protocol."
        )
        self.workers_failed = self._counter(
            "index_workers_failed_total", "Worker processes that failed while reading new jobs."
        )
        self.reconcile_duration = Histogram(
            "jobsvc_reconcile_duration_seconds",
            "Duration of a reconcile: a comparison of every job with the index.",
            buckets=_RECONCILE_BUCKETS,
            registry=self.registry,
        )

    def _storage(self) -> None:
        self.storage_unavailable = self._counter(
            "storage_unavailable_total", "Storage calls that timed out or failed."
        )
        self.storage_stuck = self._gauge(
            "storage_threads_stuck", "Threads that are stuck in a call of the storage."
        )
        self._gauge(
            "storage_last_answer_age_seconds",
            "Time since storage last responded; since the start, if it never did.",
        ).set_function(lambda: self._clock() - self._storage_answered)

    def _access(self) -> None:
        self.token_file_errors = self._counter(
            "token_file_errors_total",
            "Failed reads of the token file; the last valid version remains in use.",
        )
        self.token_label_errors = self._counter(
            "token_label_errors_total", "Failed reads of the token labels; tokens then have no labels."
        )
        self.tokens_expiring_soon = self._gauge(
            "tokens_expiring_soon", "Valid tokens that expire within 14 days."
        )
        self.token_use_errors = self._counter(
            "token_use_errors_total", "Failed writes of the times when tokens were last used."
        )
        self.revoked_links_errors = self._counter(
            "revoked_links_errors_total",
            "Failed reads of the revoked links; those that are known remain revoked.",
        )
        self.issued_links_errors = self._counter(
            "issued_links_errors_total", "Failed writes of the record of created links."
        )
        self.auth_failures = self._counter("auth_failures_total", "Requests with a missing or invalid token.")
        self.rate_limited = self._counter(
            "rate_limited_total", "Requests refused because a budget was used up.", "budget", BUDGETS
        )
        self.download_log_errors = self._counter(
            "download_log_errors_total", "Lines that were not written to the download log."
        )

    def _live_streams(self) -> None:
        self.log_bytes = self._counter("log_bytes_total", "Bytes of logs sent to clients.")
        self.requests_waiting = self._gauge(
            "requests_waiting", "Long polls: requests that wait for a job to change."
        )
        self.logs_followed = self._gauge("logs_followed", "Logs that are being followed.")
        self.events_merged = self._counter(
            "events_merged_total",
            "Changes that were not sent to an event stream because a later change replaced them.",
        )
        self.streams = Gauge(
            "jobsvc_event_streams",
            "Open event streams, by kind.",
            ("of",),
            registry=self.registry,
        )
        for what in STREAMS:
            self.streams.labels(what)
        self.streams_resumed = self._counter(
            "event_streams_resumed_total",
            "Streams of all jobs that continue after an earlier event, by what was kept since then.",
            "kept",
            KEPT,
        )
        self.streams_refused = self._counter(
            "streams_refused_total",
            "Event streams, followed logs and long polls refused because of a limit.",
            "limit",
            SLOT_LIMITS,
        )

    def _connections(self) -> None:
        self.connections = self._gauge("connections", "Open connections.")
        self.connections_refused = self._counter(
            "connections_refused_total",
            "Connections above the limit; they serve probes, other requests result in a 503.",
        )
        self.connections_closed = self._counter(
            "connections_closed_total",
            "Connections closed by the service, by reason.",
            "reason",
            CLOSE_REASONS,
        )
        self.accept_errors = self._counter(
            "accept_errors_total", "Connections not accepted because of a lack of descriptors or memory."
        )

    def name_instance(self, name: str) -> None:
        """Set the name of this process."""
        self._instance.info({"name": name})

    def note_storage_response(self) -> None:
        """Record that storage responded just now; a response that something is absent counts too."""
        self._storage_answered = self._clock()

    def record_unreadable(self, error: BadRecord) -> None:
        """Count an invalid record, by the part of it that was wrong."""
        self.records_unreadable.labels(error.reason).inc()

    def exposition(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus' text format, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
