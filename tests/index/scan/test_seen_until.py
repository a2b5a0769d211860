"""Up to when an index says that it has seen every change on storage."""

from __future__ import annotations

import asyncio
import errno
import time

import pytest

from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index.catalogue import missing_files
from jobsvc.index.job_index import JobIndex
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from tests.eventually import until
from tests.index.job_dirs import Farm
from tests.index.parts import make_index


class FaultyRoot(JobsRoot):
    """A root in which the storage of one job can fail."""

    failing: str | None = None

    def read(self, job_id: str, known: JobSnapshot | None = None) -> JobSnapshot:
        if job_id == self.failing:
            raise OSError(errno.EIO, "failing")
        return super().read(job_id, known)


async def reconciled(index: JobIndex, times: int = 2) -> None:
    """Wait until all jobs have been compared with storage, from now on, so many times."""
    for _ in range(times):
        before = index.stats.reconciled_at
        await until(lambda before=before: index.stats.reconciled_at != before)  # type: ignore[misc]


async def test_time_is_never_later_than_a_change_that_is_not_in_the_catalogue(
    farm: Farm, disk: StorageExecutor
) -> None:
    farm.put("a")
    index = make_index(disk, JobsRoot(farm.root), WatchMode.POLL, poll_interval=0.05)
    async with index.running():
        await asyncio.wait_for(index.ready.wait(), 10)
        for number in range(5):
            changed_at = time.time()
            farm.put(f"new-{number}", "completed")
            await until(lambda at=changed_at: index.journal.seen_until > at)  # type: ignore[misc]
            assert index.catalogue.get(f"new-{number}") is not None


@pytest.mark.parametrize("job_id", ["a", "unknown"])
async def test_time_stands_still_while_the_storage_of_a_job_fails(
    farm: Farm, disk: StorageExecutor, job_id: str
) -> None:
    root = FaultyRoot(farm.root)
    farm.put("a", "completed")
    index = make_index(disk, root, WatchMode.POLL, poll_interval=0.05)
    async with index.running():
        await until(lambda: index.journal.seen_until)
        root.failing = job_id
        farm.put(job_id, "failed")
        await reconciled(index)
        failing_since = time.time()
        await reconciled(index)
        assert index.journal.seen_until < failing_since
        root.failing = None
        await until(lambda: index.journal.seen_until > failing_since)
        entry = index.catalogue.get(job_id)
        assert entry is not None
        assert entry.snapshot.job.status == "failed"


async def test_time_stands_still_while_a_missing_record_may_come_back(
    farm: Farm, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing_files, "ABSENCE_GRACE_S", 0.5)
    folder = farm.put("a", "completed")
    farm.put("b", "completed")
    index = make_index(disk, JobsRoot(farm.root), WatchMode.POLL, poll_interval=0.05)
    async with index.running():
        await until(lambda: index.journal.seen_until)
        (folder / "status.json").unlink()
        removed_at = time.time()
        await until(lambda: index.journal.seen_until > removed_at)
        assert index.catalogue.get("a") is None
