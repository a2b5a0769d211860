"""Decide whether to wait for a missing log, because it may be missing only while it is replaced.

A request waits for a log that was read recently, and for one whose directory was modified within
ABSENCE_GRACE_S. If the log is still missing after that, later requests do not wait until it exists again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic, time
from typing import Final, TypeVar

from jobsvc.domain.errors import LogMissing, StorageUnavailable
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.missing_files import ABSENCE_GRACE_S, MissingFiles
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.web.jobs.file_access import RETRY_INTERVAL_S

T = TypeVar("T")

MAX_JOBS: Final = 4096
"""Maximum number of jobs that are remembered; the least recently requested one is dropped first."""


class RecentLogs:
    """Remember which logs existed recently. Event loop only."""

    def __init__(self, disk: StorageExecutor, root: JobsRoot, catalogue: Catalogue) -> None:
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._was_there: OrderedDict[str, bool] = OrderedDict()
        """By job id: whether the log existed when it was last requested; False after an unsuccessful wait."""
        self._missing = MissingFiles()

    async def read(self, job_id: str, read: Callable[[], Awaitable[T]], *, unread: bool = True) -> T:
        """Call `read`, and repeat it while the log may be missing only for a moment.

        `unread`: wait also for a log that was not read recently. Raises LogMissing, and what `read` raises.
        """
        while True:
            started_at = monotonic()
            try:
                result = await read()
            except LogMissing:
                if not await self._may_return(job_id, started_at, unread=unread):
                    if unread or job_id in self._missing:
                        self._remember(job_id, was_there=False)
                    raise
                await asyncio.sleep(RETRY_INTERVAL_S)
            else:
                self._remember(job_id, was_there=True)
                return result

    async def _may_return(self, job_id: str, started_at: float, *, unread: bool) -> bool:
        if job_id in self._missing:
            return self._missing.note_missing(job_id, started_at)
        was_there = self._was_there.get(job_id)
        if was_there is None and unread:
            was_there = await self._folder_just_changed(job_id)
        return bool(was_there) and self._missing.note_missing(job_id, started_at)

    async def _folder_just_changed(self, job_id: str) -> bool:
        entry = self._catalogue.get(job_id)
        if entry is None:
            return False
        job = entry.snapshot.job
        try:
            changed_at = await self._disk.run_metadata(job_id, lambda: self._root.log_folder_changed_at(job))
        except StorageUnavailable:
            return False
        return changed_at is not None and abs(time() - changed_at) < ABSENCE_GRACE_S

    def _remember(self, job_id: str, *, was_there: bool) -> None:
        self._missing.note_found(job_id)
        self._was_there[job_id] = was_there
        self._was_there.move_to_end(job_id)
        if len(self._was_there) > MAX_JOBS:
            oldest, _ = self._was_there.popitem(last=False)
            self._missing.note_found(oldest)
