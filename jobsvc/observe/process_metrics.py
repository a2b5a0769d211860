"""Figures of the process (memory, descriptors, processor time) as prometheus_client collects them.

They come from files of /proc, so they are read in a thread and kept for the exposition on the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class ProcessMetrics(Collector):
    """The figures as they were read last. Where a file can't be opened, its figures are left out."""

    def __init__(self) -> None:
        self._latest: list[Metric] = []

    def read(self) -> None:
        """Read the figures; blocking."""
        self._latest = list(self._collector.collect())

    def collect(self) -> Iterable[Metric]:
        """Return what was read last."""
        return self._latest

    @cached_property
    def _collector(self) -> ProcessCollector:
        return ProcessCollector(registry=None)
