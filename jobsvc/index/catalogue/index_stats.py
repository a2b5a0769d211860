"""What the last comparisons with the disk found, for the list's age and for the metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class IndexStats:
    """Results of the last listing and the last reconcile; event loop only."""

    ignored_names: int = 0
    """Names in the root that cannot be job ids."""
    reconciled_at: float | None = None
    """When the last reconcile ended (monotonic seconds); None before the first."""
    reconcile_seconds: float = 0
    """Duration of the last reconcile."""
