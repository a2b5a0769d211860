"""Read jobs from disk in the background: after an event, after a new watch, and in bulk.

Many jobs are read in one thread call, few in one call each. If one job hangs, the others of its batch are
read without it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import count, islice
from time import monotonic, perf_counter
from typing import Final

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.scan import reconcile
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
WORKERS: Final = 8
"""Tasks that run `work`."""
MAX_EVENT_BATCH_JOBS: Final = 100
"""Maximum queued jobs per thread call, for example in a burst of events."""
MAX_HANGING_CALLS: Final = 8
"""Maximum threads left hanging in storage by these reads; requests need the others."""


class RefreshQueue:
    """Two queues of jobs to read, urgent and other ones, and their workers. Event loop only."""

    def __init__(
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        catalogue: Catalogue,
        freshness: Freshness,
        on_rest: Callable[[], None],
        *,
        on_worker_failed: Callable[[], None] | None = None,
    ) -> None:
        """`on_rest` is called whenever no job of `refresh_later` is queued any more.

        `on_worker_failed` is called for each worker process that fails.
        """
        self._worker_pool = WorkerPool(
            root, disk, lambda found: freshness.apply_result(found, None), on_worker_failed
        )
        self._retries = Retries(self.refresh_later)
        self._on_rest = on_rest
        self.is_local = False
        """Whether the file system is local, so that stat results prove that a job is unchanged."""
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._freshness = freshness
        self._urgent: OrderedDict[str, None] = OrderedDict()
        self._others: OrderedDict[str, None] = OrderedDict()
        self._in_progress: set[str] = set()
        self._alone: list[str] | None = None
        """The batch of the only worker that serves `refresh_later` on a local file system; None if idle."""
        self._rounds = 0
        self._wake = asyncio.Event()
        self._keys = count()
        self._hanging: dict[str, BatchRead] = {}
        """Jobs whose read hangs; they are skipped until its thread returns."""
        self._lost = 0
        self._fetched = 0
        """Batches for which a local disk had to read much."""

    @property
    def is_backlogged(self) -> bool:
        """Whether jobs of `refresh_later` are queued."""
        return bool(self._others)

    def refresh_now(self, job_ids: Iterable[str]) -> None:
        """Queue these jobs to be read first: there was an event for them."""
        self._urgent.update(dict.fromkeys(job_ids))
        self._wake.set()

    def refresh_later(self, job_ids: Iterable[str]) -> None:
        """Queue these jobs to be read when no urgent job waits and no `refresh_all` is in progress.

        On a local file system one worker reads them: more would take CPU from requests.
        """
        self._others.update(dict.fromkeys(job_ids))
        self._wake.set()

    async def work(self) -> None:
        """Read queued jobs until cancelled; WORKERS of these run concurrently."""
        key = f"*hints-{next(self._keys)}"
        while True:
            while not (batch := self._take()):
                self._wake.clear()
                if not self._others:
                    self._on_rest()
                await self._wake.wait()
            try:
                await self._refresh_one(key, batch)
            finally:
                self._in_progress.difference_update(batch)
                if self._alone is batch:
                    self._alone = None

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
        self._rounds += 1
        try:
            if self.is_local:
                new = await self._worker_pool.read(new)
            batches = reconcile.batches([*new, *job_ids], self._catalogue.entries, MAX_BATCH_JOBS)
            return await self._stages(key, batches, listed)
        finally:
            self._rounds -= 1
            self._wake.set()

    async def _stages(
        self, key: str, batches: Iterator[Sequence[ReadRequest]], listed: Container[str] | None
    ) -> float:
        lanes, cost = 1, 0.0
        while stage := list(islice(batches, lanes * BATCHES_PER_STAGE)):
            begun, before, fetched = monotonic(), cost, self._fetched
            left = iter(stage)
            ends = await asyncio.gather(
                *(self._reader(f"{key}-{lane}", left, listed) for lane in range(lanes)),
                return_exceptions=True,
            )
            for end in ends:
                if isinstance(end, BaseException):
                    raise end
                cost += end
            waits = monotonic() - begun > SLOW_STORAGE_FACTOR * (cost - before)
            lanes = MAX_READERS if waits and (self._fetched > fetched or not self.is_local) else 1
        return cost

    async def _reader(
        self, key: str, batches: Iterator[Sequence[ReadRequest]], listed: Container[str] | None
    ) -> float:
        cost = 0.0
        for batch in batches:
            cost += await self._read_batches(key, batch, listed)
        return cost

    def _take(self) -> list[str]:
        """Take the next batch of jobs; [] if there is none.

        It has at most 1/WORKERS of a queue, so that no worker is idle, and at most MAX_EVENT_BATCH_JOBS jobs.
        """
        hinted_only = self._rounds > 0 or self._alone is not None
        for queue in (self._urgent,) if hinted_only else (self._urgent, self._others):
            size = min(max(1, len(queue) // WORKERS), MAX_EVENT_BATCH_JOBS)
            batch = list(islice((job_id for job_id in queue if job_id not in self._in_progress), size))
            for job_id in batch:
                del queue[job_id]
            if batch:
                self._in_progress.update(batch)
                if queue is self._others and self.is_local:
                    self._alone = batch
                return batch
        return []

    async def _refresh_one(self, key: str, batch: list[str]) -> None:
        try:
            if len(batch) == 1:
                await self._freshness.refresh(batch[0])
                self._retries.succeeded(batch)
            else:
                (wanted,) = reconcile.batches(batch, self._catalogue.entries, MAX_EVENT_BATCH_JOBS)
                await self._read_batches(key, wanted)
        except StorageUnavailable:
            self._retries.failed(batch)

    async def _read_batches(
        self, key: str, wanted: Sequence[ReadRequest], listed: Container[str] | None = None
    ) -> float:
        cost = 0.0
        while wanted := self._answering(wanted):
            sweep = BatchRead(self._root, wanted, quick=self.is_local, listed=listed)
            wanted = await self._read_batch(key, sweep)
            begun = perf_counter()
            for found in sweep.results:
                self._freshness.apply_result(found, sweep.root_stat)
            self._retries.succeeded(found.job_id for found in sweep.results)
            self._retries.failed(
                [found.job_id for found in sweep.results if isinstance(found.outcome, OSError)]
            )
            cost += sweep.cost + perf_counter() - begun
            self._fetched += sweep.hit_disk
        return cost

    def _answering(self, wanted: Sequence[ReadRequest]) -> Sequence[ReadRequest]:
        """Return the requests without the jobs that hang.

        Raises StorageUnavailable if MAX_HANGING_CALLS hang: then all storage might.
        """
        for job_id in [job_id for job_id, sweep in self._hanging.items() if sweep.finished]:
            del self._hanging[job_id]
        if not self._hanging:
            return wanted
        if len(self._hanging) >= MAX_HANGING_CALLS:
            raise StorageUnavailable
        return [one for one in wanted if one[0] not in self._hanging]

    async def _read_batch(self, key: str, sweep: BatchRead) -> Sequence[ReadRequest]:
        """Run a batch in a thread. Returns the requests that it did not reach, without a job that hangs.

        Raises StorageUnavailable if the batch did not start, or failed as a whole.
        """
        hangs = False
        try:
            # A hanging thread counts against its key's share, so later calls use a new key.
            await self._disk.run_metadata(f"{key}.{self._lost}", sweep)
        except StorageUnavailable:
            if sweep.started_at is None or sweep.finished:
                raise
            hangs = True
        finally:
            # If the thread returns later, it must not add to these results.
            sweep.abandoned = True
            sweep.results = list(sweep.results)
        rest = sweep.remaining()
        if hangs and rest:
            self._hanging[rest[0][0]] = sweep
            self._lost += 1
        return rest[hangs:]
