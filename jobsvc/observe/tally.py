"""Counts requests and how long they took, for a tenth of what ready-made counters cost a request.

Only the loop's thread counts and only it collects, so there is nothing to lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper bounds in seconds: status answers lie in the lower half, downloads in the upper."""

_LABELS: Final = (*map(str, BUCKETS), "+Inf")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestTally(Collector):
    """jobsvc_requests_total and jobsvc_request_duration_seconds."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], int] = {}
        self._spread: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def observe(self, route: str, method: str, code: int, seconds: float) -> None:
        """Count one answer. `route` is a pattern, never a path: every new one is kept for ever."""
        key = (route, method, code)
        counts = self._counts
        if key not in counts:
            key = self._add(route, method, code)
        counts[key] += 1
        self._spread[route][bisect_left(BUCKETS, seconds)] += 1
        self._seconds[route] += seconds

    def _add(self, route: str, method: str, code: int) -> tuple[str, str, int]:
        """Make room for a new key. Clients may make methods up: those share one name."""
        key = (route, method if method in _METHODS else "other", code)
        self._counts.setdefault(key, 0)
        self._spread.setdefault(route, [0] * (len(BUCKETS) + 1))
        self._seconds.setdefault(route, 0.0)
        return key

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """Give all counts as Prometheus has them."""
        requests = CounterMetricFamily(
            "jobsvc_requests", "Requests answered.", labels=("route", "method", "code")
        )
        for (route, method, code), count in self._counts.items():
            requests.add_metric((route, method, str(code)), count)
        yield requests
        durations = HistogramMetricFamily(
            "jobsvc_request_duration_seconds",
            "Time from request to end of answer.",
            labels=("route",),
        )
        for route, spread in self._spread.items():
            durations.add_metric((route,), _cumulated(spread), self._seconds[route])
        yield durations


def _cumulated(spread: list[int]) -> list[tuple[str, float]]:
    return list(zip(_LABELS, map(float, accumulate(spread)), strict=True))
