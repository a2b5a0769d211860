"""Looks at the disk that nobody waits for: those a hint asks for, those a new watch needs, and rounds.

Many at once share a hop, few have one each. Where one job hangs, the others of its hop go on without it.
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
"""Jobs that one hop of a round looks at, at most."""
BATCHES_PER_STAGE: Final = 4
"""Batches of a lane, after which it is asked again how many lanes there should be."""
MAX_READERS: Final = 6
SLOW_STORAGE_FACTOR: Final = 3
"""Storage that takes so many times as long as the processor is waited for in several lanes.

A busy processor looks the same. What is on a disk of this machine is waited for only where that had to read.
"""
WORKERS: Final = 8
MAX_EVENT_BATCH_JOBS: Final = 100
"""Hinted jobs that share a hop in a burst."""
MAX_HANGING_CALLS: Final = 8
"""The most threads that looks leave behind in storage that hangs; others are needed by requests."""


class RefreshQueue:
    """Queues of jobs to look at, and the workers that do."""

    def __init__(
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        catalogue: Catalogue,
        freshness: Freshness,
        on_rest: Callable[[], None],
        *,
        on_scout_lost: Callable[[], None] | None = None,
    ) -> None:
        """`on_rest` is called whenever no look that can wait is queued any more."""
        self._worker_pool = WorkerPool(
            root, disk, lambda found: freshness.apply_result(found, None), on_scout_lost
        )
        self._retries = Retries(self.refresh_later)
        self._on_rest = on_rest
        self.is_local = False
        """Whether names alone may be believed to tell that nothing changed: on a local file system."""
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._freshness = freshness
        self._urgent: OrderedDict[str, None] = OrderedDict()
        self._others: OrderedDict[str, None] = OrderedDict()
        self._in_progress: set[str] = set()
        self._alone: list[str] | None = None
        """What the one worker looks at that looks at what can wait, where there is to be only one."""
        self._rounds = 0
        self._wake = asyncio.Event()
        self._keys = count()
        self._hanging: dict[str, BatchRead] = {}
        """Jobs whose storage has kept a thread; until that is back, they are left alone."""
        self._lost = 0
        self._fetched = 0
        """Sweeps that a disk had to read much for."""

    @property
    def is_backlogged(self) -> bool:
        """Whether there are looks queued that can wait."""
        return bool(self._others)

    def refresh_now(self, job_ids: Iterable[str]) -> None:
        """Look at these soon: something happened to them."""
        self._urgent.update(dict.fromkeys(job_ids))
        self._wake.set()

    def refresh_later(self, job_ids: Iterable[str]) -> None:
        """Look at these when no hint waits, and no round is under way.

        Where storage is in memory, one worker does: more would take the processor from requests.
        """
        self._others.update(dict.fromkeys(job_ids))
        self._wake.set()

    async def work(self) -> None:
        """Look at what is queued, for ever; several of these run side by side."""
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
        """Look at all of these, but first at `new` ones; returns the seconds of a processor that it cost us.

        On a file system of this machine scouts look at what is new, where that is much. Where storage lets us
        wait for it, several hops are under way at once; where it is in memory, one. StorageUnavailable where
        it does not answer at all. `listed` are the names in the root, where it was listed just before.
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
        """Take the next jobs: few where few wait, so that no worker is without."""
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
        """Leave out the jobs that hang; StorageUnavailable where so many do that it might be all."""
        for job_id in [job_id for job_id, sweep in self._hanging.items() if sweep.finished]:
            del self._hanging[job_id]
        if not self._hanging:
            return wanted
        if len(self._hanging) >= MAX_HANGING_CALLS:
            raise StorageUnavailable
        return [one for one in wanted if one[0] not in self._hanging]

    async def _read_batch(self, key: str, sweep: BatchRead) -> Sequence[ReadRequest]:
        """Have a sweep made; returns what it left over, without a job that hangs."""
        hangs = False
        try:
            # A thread that was lost stays in its key's share; with others no later look shares that.
            await self._disk.run_metadata(f"{key}.{self._lost}", sweep)
        except StorageUnavailable:
            if sweep.started_at is None or sweep.finished:
                raise
            hangs = True
        finally:
            # A thread that comes back to it later must find nothing more to add.
            sweep.abandoned = True
            sweep.results = list(sweep.results)
        rest = sweep.remaining()
        if hangs and rest:
            self._hanging[rest[0][0]] = sweep
            self._lost += 1
        return rest[hangs:]
