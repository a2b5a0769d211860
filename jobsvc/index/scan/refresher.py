"""Read jobs from disk in the background: those of the refresh queue, and many at once.

Many jobs are read in one thread call. If one job hangs, the others of its batch are read without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import count, islice
from time import monotonic, perf_counter
from typing import Final

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.index.catalogue.catalogue_updater import CatalogueUpdater
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.scan.refresh_queue import RefreshQueue
from jobsvc.index.scan.retries import Retries
from jobsvc.index.scan.worker_pool import WorkerPool
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.batch_read import BatchRead, ReadRequest
from jobsvc.storage.jobs.reader import JobsRoot

MAX_BATCH_JOBS: Final = 500
"""Maximum jobs per thread call of `refresh_all`."""
BATCHES_PER_STAGE: Final = 4
"""Batches per parallel reader, after which the number of readers is decided again."""
MAX_READERS: Final = 6
"""Parallel readers of one `refresh_all` while storage is the bottleneck."""
SLOW_STORAGE_FACTOR: Final = 3
"""If a stage takes this many times its CPU time, storage is the bottleneck and MAX_READERS are used.

A busy CPU looks the same, so on local file systems a batch must also have caused disk reads (ru_inblock).
"""
MAX_HANGING_CALLS: Final = 8
"""Once so many threads hang in these reads, no further read starts; requests need the other threads.

Reads that have started by then can hang, too.
"""


class Refresher:
    """Read jobs in threads and apply the results. Event loop only."""

    def __init__(
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        catalogue: Catalogue,
        *,
        updater: CatalogueUpdater,
        queue: RefreshQueue,
        on_queue_empty: Callable[[], None],
        on_worker_failed: Callable[[], None],
    ) -> None:
        """`on_queue_empty` is called whenever no job of `refresh_later` is queued any more.

        `on_worker_failed` is called for each worker process that fails.
        """
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._updater = updater
        self._queue = queue
        self._on_queue_empty = on_queue_empty
        self._worker_pool = WorkerPool(
            root, disk, lambda result: updater.apply(result, None), on_worker_failed
        )
        self._retries = Retries(queue.refresh_later)
        self._keys = count()
        self._hanging: dict[str, BatchRead] = {}
        """Jobs whose read hangs; they are skipped until its thread returns."""
        self._hung_calls = 0
        """Number of calls that hung, including those that returned later."""
        self._disk_batches = 0
        """Batches for which a local disk had to read much."""

    @property
    def is_settled(self) -> bool:
        """Whether the catalogue has what the last read of each job found: none failed, no file is awaited."""
        return not (self._retries or self._updater.keeps_missing_files)

    async def refresh_queued(self) -> None:
        """Read queued jobs until cancelled; QUEUE_READERS of these run concurrently."""
        key = f"*queue-{next(self._keys)}"
        queue = self._queue
        while True:
            while not (batch := queue.take()):
                if not queue.is_backlogged:
                    self._on_queue_empty()
                await queue.wait()
            try:
                await self._read(key, self._requests(batch))
            except StorageUnavailable:
                self._retries.failed(batch)
            finally:
                queue.done(batch)

    async def refresh_all(
        self,
        key: str,
        job_ids: Sequence[str],
        new: Sequence[str] = (),
        *,
        listed: Container[str] | None = None,
    ) -> float:
        """Read all of these jobs, `new` ones first. Returns the CPU seconds used in this process.

        On a local file system worker processes read the new jobs if there are many. If storage is the
        bottleneck, several batches are read in parallel, else one at a time. `listed` are the names in the
        root, if it has just been listed. Raises StorageUnavailable if storage does not respond at all.
        """
        with self._queue.bulk_read():
            if self._queue.is_local:
                new = await self._worker_pool.read(new)
            return await self._read_stages(key, self._batches([*new, *job_ids]), listed)

    def _requests(self, job_ids: Sequence[str]) -> Sequence[ReadRequest]:
        """Return read requests with the snapshots known now."""
        known = self._catalogue.entries
        return [
            (job_id, None if (entry := known.get(job_id)) is None else entry.snapshot) for job_id in job_ids
        ]

    async def _read(
        self, key: str, requests: Sequence[ReadRequest], listed: Container[str] | None = None
    ) -> float:
        """Read one batch, in several calls if one takes too long, and apply the results. Returns the cost."""
        cost = 0.0
        while requests := self._without_hanging(requests):
            batch = BatchRead(self._root, requests, is_local=self._queue.is_local, listed=listed)
            requests = await self._call(key, batch)
            started_at = perf_counter()
            for result in batch.results:
                self._updater.apply(result, batch.root_stat)
            self._retries.succeeded(result.job_id for result in batch.results)
            self._retries.failed(
                [result.job_id for result in batch.results if isinstance(result.outcome, OSError)]
            )
            cost += batch.cost + perf_counter() - started_at
            self._disk_batches += batch.hit_disk
        return cost

    async def _call(self, key: str, batch: BatchRead) -> Sequence[ReadRequest]:
        """Run a batch in a thread. Returns the requests that it did not reach, without a job that hangs.

        Raises StorageUnavailable if the batch did not start, or failed as a whole.
        """
        hangs = False
        try:
            # A hanging thread counts against its key's share, so later calls use a new key.
            await self._disk.run_metadata(f"{key}.{self._hung_calls}", batch)
        except StorageUnavailable:
            if batch.started_at is None or batch.finished:
                raise
            hangs = True
        finally:
            # If the thread returns later, it must not add to these results.
            batch.abandoned = True
            batch.results = list(batch.results)
        remaining = batch.remaining()
        if hangs and remaining:
            job_id, _ = remaining[0]
            self._hanging[job_id] = batch
            self._hung_calls += 1
            self._retries.failed([job_id])
            remaining = remaining[1:]
        return remaining

    def _without_hanging(self, requests: Sequence[ReadRequest]) -> Sequence[ReadRequest]:
        """Return the requests without the jobs that hang; these are retried later.

        Raises StorageUnavailable if MAX_HANGING_CALLS hang: then all storage might.
        """
        for job_id in [job_id for job_id, batch in self._hanging.items() if batch.finished]:
            del self._hanging[job_id]
        if not self._hanging:
            return requests
        if len(self._hanging) >= MAX_HANGING_CALLS:
            raise StorageUnavailable
        self._retries.failed([job_id for job_id, _ in requests if job_id in self._hanging])
        return [request for request in requests if request[0] not in self._hanging]

    def _batches(self, job_ids: Sequence[str]) -> Iterator[Sequence[ReadRequest]]:
        """Yield read requests in batches, with the snapshots known when each batch is taken."""
        for start in range(0, len(job_ids), MAX_BATCH_JOBS):
            yield self._requests(job_ids[start : start + MAX_BATCH_JOBS])

    async def _read_stages(
        self, key: str, batches: Iterator[Sequence[ReadRequest]], listed: Container[str] | None
    ) -> float:
        readers, cost = 1, 0.0
        while stage := list(islice(batches, readers * BATCHES_PER_STAGE)):
            started_at, cost_before, disk_before = monotonic(), cost, self._disk_batches
            remaining = iter(stage)
            costs = await asyncio.gather(
                *(self._read_all(f"{key}-{reader}", remaining, listed) for reader in range(readers)),
                return_exceptions=True,
            )
            for each in costs:
                if isinstance(each, BaseException):
                    raise each
                cost += each
            is_slow = monotonic() - started_at > SLOW_STORAGE_FACTOR * (cost - cost_before)
            used_disk = self._disk_batches > disk_before or not self._queue.is_local
            readers = MAX_READERS if is_slow and used_disk else 1
        return cost

    async def _read_all(
        self, key: str, batches: Iterator[Sequence[ReadRequest]], listed: Container[str] | None
    ) -> float:
        cost = 0.0
        for batch in batches:
            cost += await self._read(key, batch, listed)
        return cost
