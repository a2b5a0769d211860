"""Files that were there and are missing now, for a moment or for good. Loop-owned.

Windows and some SMB servers replace a file by deleting it and renaming another into its place. For that
moment the file is missing while the job's directory stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

ABSENCE_GRACE_S: Final = 2.0
"""Seconds for which the last known version of a missing file stands."""

_TIMER_SLACK_S: Final = 0.05
"""The job is read again so much after the grace is over: a timer may be a little early."""


class MissingFiles:
    """When a file of a job was first found missing, by job id."""

    def __init__(self, recheck: Callable[[str], None] | None = None) -> None:
        """Have `recheck` called with the job id once the grace is over."""
        self._recheck = recheck
        self._first_missing: dict[str, float] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._first_missing

    def is_bridged(self, job_id: str, begun: float) -> bool:
        """Record that a read begun at `begun` (monotonic seconds) found the file missing.

        Return whether the grace is still running.
        """
        first = self._first_missing.get(job_id)
        if first is None:
            self._first_missing[job_id] = begun
            self.recheck_later(job_id)
            return True
        return begun - first < ABSENCE_GRACE_S

    def found(self, job_id: str) -> None:
        """Record that the file is there, or that the job no longer has one."""
        self._first_missing.pop(job_id, None)

    def recheck_later(self, job_id: str) -> None:
        """Have the job read again after the grace."""
        if self._recheck is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(ABSENCE_GRACE_S + _TIMER_SLACK_S, self._recheck, job_id)
