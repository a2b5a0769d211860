"""Read single jobs from disk for requests; concurrent requests for one job share a read. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from jobsvc.index.catalogue.catalogue_updater import CatalogueUpdater
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.batch_read import BatchRead
from jobsvc.storage.jobs.reader import JobsRoot

KNOWN_DEADLINE_S: Final = 1.0
"""Seconds to wait for a read if a last known snapshot can be returned instead."""
UNKNOWN_DEADLINE_S: Final = 5.0
"""Seconds to wait for a read if there is nothing else to return."""


class SharedRead:
    """A read of one job in progress, shared by all requests that wait for it."""

    __slots__ = ("batch", "task")

    def __init__(self, batch: BatchRead, task: asyncio.Task[None]) -> None:
        self.batch = batch
        self.task = task

    async def wait(self) -> float:
        """Wait until the read ends. Returns when it started (monotonic seconds).

        The read is shielded: cancelling one waiting request does not cancel it for the others.
        Raises StorageUnavailable.
        """
        await asyncio.shield(self.task)
        return self.batch.results[0].started_at


class SharedReads:
    """The reads in progress, by job id."""

    def __init__(
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        catalogue: Catalogue,
        updater: CatalogueUpdater,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._updater = updater
        self._clock = clock
        self._reads: dict[str, SharedRead] = {}

    def join(self, job_id: str, deadline: float, *, must_start_now: bool) -> SharedRead:
        """Return the read in progress, or start one that fails after `deadline` seconds.

        With `must_start_now`, a read that already accesses storage is not joined.
        """
        read = self._reads.get(job_id)
        if read is None or (must_start_now and read.batch.started_at is not None):
            read = self._start(job_id, deadline)
        return read

    def _start(self, job_id: str, deadline: float) -> SharedRead:
        entry = self._catalogue.get(job_id)
        request = job_id, None if entry is None else entry.snapshot
        batch = BatchRead(self._root, [request], clock=self._clock)
        task = asyncio.get_running_loop().create_task(self._read(job_id, batch, deadline))
        read = self._reads[job_id] = SharedRead(batch, task)
        task.add_done_callback(lambda task: self._on_done(job_id, read, task))
        return read

    async def _read(self, job_id: str, batch: BatchRead, deadline: float) -> None:
        await self._disk.run_metadata(job_id, lambda: _run_or_raise(batch), deadline)
        for result in batch.results:
            self._updater.apply(result, batch.root_stat)

    def _on_done(self, job_id: str, read: SharedRead, task: asyncio.Task[None]) -> None:
        if self._reads.get(job_id) is read:
            del self._reads[job_id]
        if not task.cancelled():
            task.exception()  # marks it as retrieved; requests that wait for it get it too


def _run_or_raise(batch: BatchRead) -> None:
    for result in batch().results:
        if isinstance(result.outcome, OSError):
            raise result.outcome
