"""What the index counts, and when things happened."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Figures:
    """What was counted; moments are monotonic seconds."""

    ignored: int = 0
    """Names beneath the root that can't be jobs."""
    restarts: int = 0
    """Times that the watcher had to be begun again."""
    missed: int = 0
    """Changes that no hint announced."""
    unreadable: int = 0
    """Looks that found a record which can't be read."""
    reconciled: float | None = None
    """When everything was last compared."""
    reconcile_seconds: float = 0
    answered: float | None = None
    """When storage last answered."""
