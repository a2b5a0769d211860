from __future__ import annotations

from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobsvc import __version__
from jobsvc.domain.status_record import BadRecord, parse_record
from jobsvc.observe.metrics import Metrics

FIXED = {
    "jobsvc_requests": "counter",
    "jobsvc_request_duration_seconds": "histogram",
    "jobsvc_downloads_in_progress": "gauge",
    "jobsvc_download_bytes": "counter",
    "jobsvc_files_listed": "counter",
    "jobsvc_archive_bytes": "counter",
    "jobsvc_archives_aborted": "counter",
    "jobsvc_log_bytes": "counter",
    "jobsvc_download_throttled_seconds": "counter",
    "jobsvc_downloads": "counter",
    "jobsvc_digests": "counter",
    "jobsvc_digest_bytes": "counter",
    "jobsvc_digests_waiting": "gauge",
    "jobsvc_digests_known": "gauge",
    "jobsvc_digest_file_errors": "counter",
    "jobsvc_downloads_refused": "counter",
    "jobsvc_streams_refused": "counter",
    "jobsvc_records_unreadable": "counter",
    "jobsvc_names_ignored": "gauge",
    "jobsvc_index_jobs": "gauge",
    "jobsvc_watcher_restarts": "counter",
    "jobsvc_index_workers_failed": "counter",
    "jobsvc_watcher_missed_events": "counter",
    "jobsvc_reconcile_duration_seconds": "histogram",
    "jobsvc_storage_unavailable": "counter",
    "jobsvc_storage_threads_stuck": "gauge",
    "jobsvc_storage_last_answer_age_seconds": "gauge",
    "jobsvc_token_file_errors": "counter",
    "jobsvc_token_label_errors": "counter",
    "jobsvc_auth_failures": "counter",
    "jobsvc_rate_limited": "counter",
    "jobsvc_download_log_errors": "counter",
    "jobsvc_requests_waiting": "gauge",
    "jobsvc_logs_followed": "gauge",
    "jobsvc_event_streams": "gauge",
    "jobsvc_event_streams_resumed": "counter",
    "jobsvc_events_merged": "counter",
    "jobsvc_build_info": "gauge",
    "jobsvc_instance_info": "gauge",
    "jobsvc_token_use_errors": "counter",
    "jobsvc_revoked_links_errors": "counter",
    "jobsvc_issued_links_errors": "counter",
    "jobsvc_tokens_expiring_soon": "gauge",
    "jobsvc_watcher_unknown_lines": "counter",
    "jobsvc_shared_state_up": "gauge",
    "jobsvc_shared_state_errors": "counter",
    "jobsvc_connections": "gauge",
    "jobsvc_connections_refused": "counter",
    "jobsvc_connections_closed": "counter",
    "jobsvc_accept_errors": "counter",
    "process_start_time_seconds": "gauge",
    "process_cpu_seconds": "counter",
    "process_resident_memory_bytes": "gauge",
    "process_virtual_memory_bytes": "gauge",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"jobsvc_{name}", labels)


def test_exposition_has_exactly_the_documented_names() -> None:
    metrics = Metrics()
    metrics.process.read()
    body, media_type = metrics.exposition()
    families = list(text_string_to_metric_families(body.decode()))
    assert {family.name: family.type for family in families} == FIXED
    assert all(family.documentation.endswith(".") or ";" in family.documentation for family in families)
    assert media_type.startswith("text/plain; version=")


def test_known_series_start_at_zero() -> None:
    metrics = Metrics()
    for outcome in ("complete", "client-gone", "truncated", "storage-error", "shutdown"):
        assert value(metrics, "downloads_total", outcome=outcome) == 0
    for status in ("queued", "rendering", "completed", "failed", "canceled"):
        assert value(metrics, "index_jobs", status=status) == 0
    for budget in ("status", "list", "logs", "download", "auth-failures"):
        assert value(metrics, "rate_limited_total", budget=budget) == 0
    for limit in ("token", "owner", "all"):
        assert value(metrics, "downloads_refused_total", limit=limit) == 0
        assert value(metrics, "streams_refused_total", limit=limit) == 0


def test_each_service_has_its_own_metrics() -> None:
    first, second = Metrics(), Metrics()
    first.download_log_errors.inc()
    assert (value(first, "download_log_errors_total"), value(second, "download_log_errors_total")) == (1, 0)


def test_build_info_names_the_program() -> None:
    (info,) = [family for family in Metrics().registry.collect() if family.name == "jobsvc_build"]
    assert info.samples[0].labels["version"] == __version__


def test_age_of_the_last_storage_response_grows_until_the_next() -> None:
    now = [100.0]
    metrics = Metrics(lambda: now[0])
    now[0] = 107.5
    assert value(metrics, "storage_last_answer_age_seconds") == 7.5
    metrics.note_storage_response()
    assert value(metrics, "storage_last_answer_age_seconds") == 0


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("status.json: not JSON (unexpected end of data: line 1 column 1 (char 0))", "not-json"),
        ("status.json: larger than 1048576 bytes", "too-large"),
        ("status.json: permission denied", "denied"),
    ],
)
def test_unreadable_file_is_counted_by_its_error_class(message: str, reason: str) -> None:
    metrics = Metrics()
    metrics.record_unreadable(BadRecord(message, reason))
    assert value(metrics, "records_unreadable_total", reason=reason) == 1


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"[]", "not-an-object"),
        (b"{}", "status"),
        (b'{"status": "evil: text of the farm"}', "status"),
        (b'{"status": "done", "owner": 1}', "owner"),
        (b'{"status": "done", "owner": "a", "updatedAt": "evil: text"}', "updatedAt"),
    ],
)
def test_bad_record_is_counted_by_its_key_and_never_by_its_text(record: bytes, reason: str) -> None:
    metrics = Metrics()
    with pytest.raises(BadRecord) as caught:
        parse_record("a", orjson.loads(record), 0)
    metrics.record_unreadable(caught.value)
    assert value(metrics, "records_unreadable_total", reason=reason) == 1


def test_every_metric_can_be_set_by_its_name() -> None:
    metrics = Metrics()
    plain: list[Any] = [metrics.download_bytes, metrics.storage_unavailable, metrics.token_file_errors]
    for counter in [*plain, metrics.auth_failures, metrics.watcher_restarts, metrics.watcher_missed_events]:
        counter.inc()
    metrics.downloads_in_progress.inc()
    metrics.names_ignored.set(3)
    metrics.reconcile_duration.observe(0.2)
    metrics.observe_request("/healthz", "GET", 200, 0.001)
    body = metrics.exposition()[0].decode()
    assert "jobsvc_names_ignored 3.0\n" in body
    assert 'jobsvc_requests_total{code="200",method="GET",route="/healthz"} 1.0\n' in body
    assert "_created" not in body
