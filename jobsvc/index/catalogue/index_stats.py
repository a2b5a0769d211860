"""What the index counts, and when things happened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class IndexStats:
    """What was counted; moments are monotonic seconds."""

    ignored_names: int = 0
    """Names beneath the root that can't be jobs."""
    watcher_restarts: int = 0
    """Times that the watcher had to be begun again."""
    missed_events: int = 0
    """Changes that no hint announced."""
    unreadable_records: int = 0
    """Looks that found a record which can't be read."""
    reconciled_at: float | None = None
    """When everything was last compared."""
    reconcile_seconds: float = 0
    storage_answered_at: float | None = None
    """When storage last answered."""
