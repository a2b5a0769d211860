from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from jobsvc.domain.errors import JobNotFound
from jobsvc.domain.job import Status
from jobsvc.index.live import Index, Watch
from jobsvc.storage.disk import Disk
from jobsvc.storage.reader import JobsRoot, Reading
from tests.index.farm import Farm, until


def progress(index: Index, job_id: str) -> float | None:
    entry = index.catalogue.get(job_id)
    return None if entry is None else entry.reading.job.progress


async def test_the_first_index_holds_every_job(farm: Farm, disk: Disk) -> None:
    for number in range(1200):
        farm.put(f"job-{number}", "completed" if number % 3 else "queued")
    (farm.root / ".hidden").mkdir()
    index = Index(disk, JobsRoot(farm.root), watch=Watch.POLL)
    async with index.running():
        await asyncio.wait_for(index.ready.wait(), 10)
        assert len(index.catalogue) == 1200
        assert index.catalogue.counts[Status.QUEUED] == 400
        assert index.figures.ignored == 1


async def test_a_change_is_seen_without_anyone_asking(farm: Farm, index: Index) -> None:
    farm.put("a", progress=1)
    await asyncio.wait_for(asyncio.shield(index.freshness.look("a")), 5)
    farm.put("a", progress=2)
    await until(lambda: progress(index, "a") == 2)


async def test_a_removed_job_vanishes_without_anyone_asking(farm: Farm, index: Index) -> None:
    farm.put("a")
    farm.put("b")
    await index.freshness.job("a")
    await index.freshness.job("b")
    farm.remove("a")
    await until(lambda: index.catalogue.get("a") is None)
    with pytest.raises(JobNotFound):
        await index.freshness.job("a")


@pytest.mark.parametrize("index", [Watch.EVENTS], indirect=True)
async def test_new_directories_are_all_found_however_many_at_once(farm: Farm, index: Index) -> None:
    await until(lambda: index.covered)
    for number in range(300):
        farm.put(f"new-{number}")
    await until(lambda: len(index.catalogue) == 300)


@pytest.mark.parametrize("index", [Watch.EVENTS], indirect=True)
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_watcher_that_dies_or_hangs_is_replaced(
    farm: Farm, index: Index, sign: signal.Signals
) -> None:
    farm.put("a", progress=1)
    await until(lambda: index.covered)
    first = index.watcher_pid
    assert first is not None
    os.kill(first, sign)
    await until(lambda: not index.covered)
    farm.put("a", progress=2)
    assert (await index.freshness.job("a", force=True)).reading.job.progress == 2
    await until(lambda: index.covered and index.watcher_pid not in {None, first}, 10)
    assert index.figures.restarts == 1
    farm.put("a", progress=3)
    await until(lambda: progress(index, "a") == 3)


async def test_a_root_that_is_away_keeps_its_jobs_and_comes_back(farm: Farm, index: Index) -> None:
    for job_id in ("a", "b"):
        farm.put(job_id, progress=1)
        await index.freshness.job(job_id)
    away = farm.root.with_name("unmounted")
    farm.root.rename(away)
    await until(lambda: index.storage_away is not None)
    farm.root.mkdir()
    await until(lambda: index.storage_away == "the root is empty")
    assert (await index.freshness.job("a")).stale
    farm.root.rmdir()
    away.rename(farm.root)
    await until(lambda: index.storage_away is None)
    farm.put("a", progress=2)
    await until(lambda: progress(index, "a") == 2)
    assert not (await index.freshness.job("a")).stale


async def test_one_job_that_hangs_keeps_no_other_out_of_the_index(farm: Farm) -> None:
    release = threading.Event()

    class Root(JobsRoot):
        def read(self, job_id: str, known: Reading | None = None) -> Reading:
            if job_id == "hung":
                release.wait(30)
            return super().read(job_id, known)

    for job_id in ("a", "hung", "z"):
        farm.put(job_id)
    disk = Disk(deadline=0.3)
    try:
        index = Index(disk, Root(farm.root), watch=Watch.POLL)
        begun = time.monotonic()
        async with index.running():
            await asyncio.wait_for(index.ready.wait(), 10)
            assert set(index.catalogue.entries) == {"a", "z"}
        assert time.monotonic() - begun < 8
    finally:
        release.set()
        disk.close()
