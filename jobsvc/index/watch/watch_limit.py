"""Count the inotify watches in use against their maximum (inotify(7)). Event loop only; no I/O."""

from __future__ import annotations

from typing import Final

import structlog

log = structlog.get_logger("jobsvc.index")

FINISHED_SHARE: Final = 0.9
"""Share of all watches that finished jobs can use; the rest is reserved for new jobs."""


class WatchLimit:
    """The number of watched directories, and the maximum."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        """Maximum number of watched directories; lowered if the system allows fewer."""
        self.used = 0
        """Number of watched directories."""
        self.reached = False
        """Whether a directory was left unwatched because of the limit."""

    def reset(self) -> None:
        """Record that nothing is watched any more. A maximum that was lowered remains."""
        self.used, self.reached = 0, False

    def available(self, *, finished: bool) -> float:
        """Return how many more watches a job can use; negative if the limit is exceeded."""
        return self.maximum * (FINISHED_SHARE if finished else 1) - self.used

    def on_reached(self, jobs: int, *, refused: bool = False) -> None:
        """Record that a directory was left unwatched; `jobs` are known.

        If the system `refused` the watch, the maximum is lowered to the watches in use.
        """
        maximum = min(self.maximum, self.used) if refused else self.maximum
        if not self.reached:
            advice = "raise fs.inotify.max_user_watches"
            log.warning("too-few-watches", allowed=maximum, jobs=jobs, advice=advice)
        self.reached, self.maximum = True, maximum
