"""Of the process what Prometheus knows of any, as far as it can be had without looking at a file."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


class ProcessFigures(Collector):
    """process_start_time_seconds and process_cpu_seconds_total."""

    def __init__(self) -> None:
        self._begun = time.time()

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Give both as Prometheus has them."""
        yield GaugeMetricFamily(
            "process_start_time_seconds", "When the service began, since the epoch.", self._begun
        )
        yield CounterMetricFamily(
            "process_cpu_seconds",
            "Processor time of all threads, without the watcher's.",
            time.process_time(),
        )
