from __future__ import annotations

from prometheus_client import CollectorRegistry

from jobsvc.observe.request_metrics import BUCKETS, RequestMetrics


def tallied() -> tuple[RequestMetrics, CollectorRegistry]:
    tally, registry = RequestMetrics(), CollectorRegistry()
    registry.register(tally)
    return tally, registry


def bucket(registry: CollectorRegistry, bound: str) -> float | None:
    return registry.get_sample_value(
        "jobsvc_request_duration_seconds_bucket", {"route": "/api/jobs/{id}", "code": "200", "le": bound}
    )


def test_responses_are_counted_by_route_method_and_code() -> None:
    tally, registry = tallied()
    for code in (200, 200, 404):
        tally.observe("/api/jobs/{id}", "GET", code, 0.01)
    for shown, count in (("200", 2), ("404", 1)):
        labels = {"route": "/api/jobs/{id}", "method": "GET", "code": shown}
        assert registry.get_sample_value("jobsvc_requests_total", labels) == count


def test_unknown_methods_share_one_label() -> None:
    tally, registry = tallied()
    for number in range(1000):
        tally.observe("/", f"M{number}", 405, 0)
    tally.observe("/", "DELETE", 405, 0)
    (requests, _) = registry.collect()
    assert {(sample.labels["method"], sample.value) for sample in requests.samples} == {
        ("other", 1000),
        ("DELETE", 1),
    }
    assert len(tally._histograms) == 2


def test_durations_are_counted_in_the_bucket_of_their_upper_bound() -> None:
    tally, registry = tallied()
    for seconds in (0.0005, 0.00051, 0.001, 60, 61):
        tally.observe("/api/jobs/{id}", "GET", 200, seconds)
    assert [bucket(registry, bound) for bound in ("0.0005", "0.001", "10.0", "60.0", "+Inf")] == [
        1,
        3,
        3,
        4,
        5,
    ]
    labels = {"route": "/api/jobs/{id}", "code": "200"}
    assert registry.get_sample_value("jobsvc_request_duration_seconds_count", labels) == 5
    total = registry.get_sample_value("jobsvc_request_duration_seconds_sum", labels)
    assert total == 0.0005 + 0.00051 + 0.001 + 60 + 61
    assert list(BUCKETS) == sorted(BUCKETS)


def test_durations_are_reported_by_route_and_code() -> None:
    tally, registry = tallied()
    for method, code, seconds in (("GET", 200, 0.5), ("HEAD", 200, 0.25), ("GET", 503, 5.0)):
        tally.observe("/api/jobs", method, code, seconds)
    for shown, count, total in (("200", 2, 0.75), ("503", 1, 5.0)):
        labels = {"route": "/api/jobs", "code": shown}
        assert registry.get_sample_value("jobsvc_request_duration_seconds_count", labels) == count
        assert registry.get_sample_value("jobsvc_request_duration_seconds_sum", labels) == total
