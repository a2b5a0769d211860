"""Retry reads that failed because storage did not respond: the change might not be reported again.

Each is retried after one second, or later if more than 200 jobs are failing, to limit the cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final

RETRY_DELAY_S: Final = 1.0
MAX_RETRIES_PER_S: Final = 200
"""Retries per second, over all failing jobs."""


class Retries:
    """The jobs whose reads have to be retried. Event loop only."""

    def __init__(self, refresh: Callable[[Iterable[str]], None]) -> None:
        """`refresh` queues jobs to be read; the reader reports the result with `failed` or `succeeded`."""
        self._refresh = refresh
        self._failing: set[str] = set()
        self._pending: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._failing)

    def failed(self, job_ids: Collection[str]) -> None:
        """Retry these jobs after a delay."""
        self._failing.update(job_ids)
        due = [job_id for job_id in job_ids if job_id not in self._pending]
        if due:
            self._pending.update(due)
            delay = max(RETRY_DELAY_S, len(self._failing) / MAX_RETRIES_PER_S)
            asyncio.get_running_loop().call_later(delay, self._requeue, due)

    def succeeded(self, job_ids: Iterable[str]) -> None:
        """Record that storage responded for these jobs."""
        if self._failing:
            self._failing.difference_update(job_ids)

    def _requeue(self, job_ids: list[str]) -> None:
        self._pending.difference_update(job_ids)
        self._refresh(job_ids)
