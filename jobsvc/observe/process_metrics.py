"""Collect metrics of the process (memory, descriptors, CPU time) with prometheus_client.

They come from files in /proc, so they are read in a thread and stored for the exposition on the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class ProcessMetrics(Collector):
    """The process metrics as last read. If a file cannot be opened, its metrics are omitted."""

    def __init__(self) -> None:
        self._latest: list[Metric] = []

    def read(self) -> None:
        """Read the metrics; blocking."""
        self._latest = list(self._collector.collect())

    def collect(self) -> Iterable[Metric]:
        """Return the metrics that were read last."""
        return self._latest

    @cached_property
    def _collector(self) -> ProcessCollector:
        return ProcessCollector(registry=None)
