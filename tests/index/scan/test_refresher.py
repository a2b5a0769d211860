from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from jobsvc.index.scan import refresher as module
from jobsvc.index.scan import retries
from jobsvc.index.scan.refresh_queue import QUEUE_READERS
from jobsvc.index.scan.refresher import MAX_READERS, Refresher
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs import batch_read
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from tests.eventually import until
from tests.index.job_dirs import Farm
from tests.index.parts import Parts

JOBS = [f"job-{number}" for number in range(500)]


class Counted:
    """An executor that counts its calls in progress; each call lets all others start before it ends."""

    def __init__(self) -> None:
        self.in_progress = 0
        self.max_in_progress = 0

    async def run_metadata(self, _key: str, work: Callable[[], Any], _deadline: float | None = None) -> Any:
        self.in_progress += 1
        self.max_in_progress = max(self.max_in_progress, self.in_progress)
        for _ in range(2 * QUEUE_READERS):
            await asyncio.sleep(0)
        self.in_progress -= 1
        return await asyncio.to_thread(work)


@asynccontextmanager
async def working(refresher: Refresher) -> AsyncIterator[None]:
    """Refresh what is queued during the block."""
    workers = [asyncio.create_task(refresher.refresh_queued()) for _ in range(QUEUE_READERS)]
    yield
    for worker in workers:
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker


@pytest.mark.parametrize(("quick", "calls"), [(True, 1), (False, QUEUE_READERS)])
async def test_deferred_refreshes_use_one_reader_if_storage_is_in_memory(
    farm: Farm, *, quick: bool, calls: int
) -> None:
    for job_id in JOBS:
        farm.put(job_id)
    disk, rests = Counted(), []
    parts = Parts(
        cast(StorageExecutor, disk),
        JobsRoot(farm.root),
        on_queue_empty=lambda: rests.append(len(parts.catalogue)),
    )
    parts.queue.is_local = quick
    parts.queue.refresh_later(JOBS)
    async with working(parts.refresher):
        await until(lambda: len(parts.catalogue) == len(JOBS) and rests[-1:] == [len(JOBS)])
        assert not parts.queue.is_backlogged
        assert disk.max_in_progress == calls


class Slow(Counted):
    """An executor whose calls take much longer than their CPU time."""

    async def run_metadata(self, key: str, work: Callable[[], Any], _deadline: float | None = None) -> Any:
        await asyncio.sleep(0.01)
        return await super().run_metadata(key, work)


@pytest.mark.parametrize(
    ("quick", "read", "calls"), [(True, 0, 1), (True, 1000, MAX_READERS), (False, 0, MAX_READERS)], ids=str
)
async def test_poll_uses_parallel_readers_only_if_storage_is_the_slow_part(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, *, quick: bool, read: int, calls: int
) -> None:
    """On a local disk that has to read; a busy CPU takes as long."""
    known = JOBS[:50]
    for job_id in known:
        farm.put(job_id)
    blocks = count(0, read)
    monkeypatch.setattr(batch_read, "_blocks_read", lambda: next(blocks))
    monkeypatch.setattr(module, "MAX_BATCH_JOBS", 1)
    disk = Slow()
    parts = Parts(cast(StorageExecutor, disk), JobsRoot(farm.root))
    parts.queue.is_local = quick
    await parts.refresher.refresh_all("*poll", known)
    assert disk.max_in_progress == calls
    assert len(parts.catalogue) == len(known)


class FailingRoot(JobsRoot):
    """A root whose first reads of each job fail with a storage error."""

    def __init__(self, path: Path, *, faults: int, number: int) -> None:
        super().__init__(path)
        self.left = dict.fromkeys(JOBS, faults)
        self.number = number

    def read(self, job_id: str, known: JobSnapshot | None = None) -> JobSnapshot:
        self.left[job_id] -= 1
        if self.left[job_id] >= 0:
            raise OSError(self.number, os.strerror(self.number))
        return super().read(job_id, known)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EBUSY])
@pytest.mark.parametrize("jobs", [1, 20], ids=["one", "several"])
@pytest.mark.parametrize("how", ["refresh_now", "refresh_later", "refresh_all"])
async def test_job_is_read_again_after_a_storage_error(
    farm: Farm, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch, number: int, jobs: int, how: str
) -> None:
    monkeypatch.setattr(retries, "RETRY_DELAY_S", 0.05)
    known = JOBS[:jobs]
    for job_id in known:
        farm.put(job_id)
    parts = Parts(disk, FailingRoot(farm.root, faults=3, number=number))
    async with working(parts.refresher):
        if how == "refresh_all":
            await parts.refresher.refresh_all("*poll", known)
        else:
            getattr(parts.queue, how)(known)
        await until(lambda: len(parts.catalogue) == jobs)


class HangingRoot(JobsRoot):
    """A root on which the first read hangs until `release` is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.release = threading.Event()
        self.started = False

    def read(self, job_id: str, known: JobSnapshot | None = None) -> JobSnapshot:
        if not self.started:
            self.started = True
            self.release.wait(30)
        return super().read(job_id, known)


@pytest.mark.parametrize("jobs", [1, 20], ids=["one", "several"])
async def test_job_is_read_again_once_its_storage_responds(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(retries, "RETRY_DELAY_S", 0.05)
    for job_id in JOBS[:jobs]:
        farm.put(job_id)
    root, disk = HangingRoot(farm.root), StorageExecutor(deadline=0.2)
    parts = Parts(disk, root)
    try:
        async with working(parts.refresher):
            parts.queue.refresh_now(JOBS[:jobs])
            await until(lambda: len(parts.catalogue) == jobs - 1)
            await until(lambda: parts.refresher._hanging)
            root.release.set()
            await until(lambda: len(parts.catalogue) == jobs)
    finally:
        root.release.set()
        disk.close()
