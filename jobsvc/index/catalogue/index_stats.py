"""Counters and timestamps of the index, for the metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class IndexStats:
    """Counters since the start; timestamps are monotonic seconds."""

    ignored_names: int = 0
    """Names in the root that cannot be job ids."""
    watcher_restarts: int = 0
    """How often the watcher process ended, or failed to start, and had to be restarted."""
    missed_events: int = 0
    """Changes for which no event was received."""
    unreadable_records: int = 0
    """Reads that found an unreadable record."""
    reconciled_at: float | None = None
    """When the last reconcile ended; None before the first."""
    reconcile_seconds: float = 0
    """Duration of the last reconcile."""
    storage_answered_at: float | None = None
    """When the last root check that got a response started; None before the first."""
