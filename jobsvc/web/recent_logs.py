"""Logs that were read lately: one of these that is missing is being replaced, or was removed just now."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeVar

from jobsvc.domain.errors import LogMissing
from jobsvc.index.missing import MissingFiles
from jobsvc.web.visit import RETRY_INTERVAL_S

T = TypeVar("T")

MAX_LOGS: Final = 4096
"""Logs that are remembered; the one read longest ago is forgotten first."""


class RecentLogs:
    """The ids of their jobs. Loop-owned."""

    def __init__(self) -> None:
        self._job_ids: OrderedDict[str, None] = OrderedDict()
        self._missing = MissingFiles()

    async def read(self, job_id: str, read: Callable[[], Awaitable[T]]) -> T:
        """Call `read`, and again while a log that was read lately is missing for a moment. LogMissing."""
        while True:
            begun = monotonic()
            try:
                result = await read()
            except LogMissing:
                if job_id not in self._job_ids:
                    raise
                if not self._missing.is_bridged(job_id, begun):
                    self._forget(job_id)
                    raise
                await asyncio.sleep(RETRY_INTERVAL_S)
            else:
                self._remember(job_id)
                return result

    def _remember(self, job_id: str) -> None:
        self._missing.found(job_id)
        self._job_ids[job_id] = None
        self._job_ids.move_to_end(job_id)
        if len(self._job_ids) > MAX_LOGS:
            self._forget(next(iter(self._job_ids)))

    def _forget(self, job_id: str) -> None:
        self._missing.found(job_id)
        self._job_ids.pop(job_id, None)
