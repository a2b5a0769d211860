"""Looks again at jobs for which storage had no answer: nothing else may tell of their change.

Each is looked at again after a second; after more, where so many fail that it would cost too much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final

RETRY_DELAY_S: Final = 1.0
MAX_RETRIES_PER_S: Final = 200


class Retries:
    """The jobs that are to be looked at again. Belongs to the event loop."""

    def __init__(self, look: Callable[[Iterable[str]], None]) -> None:
        """`look` has jobs looked at; `failed` or `succeeded` says what came of it."""
        self._look = look
        self._failing: set[str] = set()
        self._pending: set[str] = set()

    def failed(self, job_ids: Collection[str]) -> None:
        """Look at these again after a delay."""
        self._failing.update(job_ids)
        due = [job_id for job_id in job_ids if job_id not in self._pending]
        if due:
            self._pending.update(due)
            delay = max(RETRY_DELAY_S, len(self._failing) / MAX_RETRIES_PER_S)
            asyncio.get_running_loop().call_later(delay, self._begin, due)

    def succeeded(self, job_ids: Iterable[str]) -> None:
        """Note that storage had an answer for these."""
        if self._failing:
            self._failing.difference_update(job_ids)

    def _begin(self, job_ids: list[str]) -> None:
        self._pending.difference_update(job_ids)
        self._look(job_ids)
