"""Track files that existed and are now missing, briefly or permanently. Event loop only.

Windows and some SMB servers replace a file by deleting it and then renaming another to its name. In between
the file is missing while the job directory exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

ABSENCE_GRACE_S: Final = 2.0
"""Seconds for which the last known version of a missing file is kept."""

_TIMER_SLACK_S: Final = 0.05
"""Seconds after the grace period at which the job is read again, since a timer can fire slightly early."""


class MissingFiles:
    """When a file was first found missing, by job id."""

    def __init__(self, recheck: Callable[[str], None] | None = None) -> None:
        """`recheck` is called with the job id after the grace period."""
        self._recheck = recheck
        self._first_missing: dict[str, float] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._first_missing

    def __len__(self) -> int:
        return len(self._first_missing)

    def note_missing(self, job_id: str, started_at: float) -> bool:
        """Record that a read started at `started_at` (monotonic seconds) found the file missing.

        Returns whether the grace period, ABSENCE_GRACE_S, is still running.
        """
        first = self._first_missing.get(job_id)
        if first is None:
            self._first_missing[job_id] = started_at
            self.recheck_later(job_id)
            return True
        return started_at - first < ABSENCE_GRACE_S

    def note_found(self, job_id: str) -> None:
        """Record that the file exists, or that the job no longer has one."""
        self._first_missing.pop(job_id, None)

    def recheck_later(self, job_id: str) -> None:
        """Schedule `recheck` of the job after the grace period."""
        if self._recheck is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(ABSENCE_GRACE_S + _TIMER_SLACK_S, self._recheck, job_id)
