"""A farm, an executor, and an index of the farm in each mode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index.catalogue import freshness
from jobsvc.index.job_index import JobIndex
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from tests.index.job_dirs import Farm
from tests.index.parts import make_index


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path / "jobs")


@pytest.fixture
def disk() -> Iterator[StorageExecutor]:
    disk = StorageExecutor()
    yield disk
    disk.close()


@pytest.fixture(params=[WatchMode.EVENTS, WatchMode.POLL])
async def index(
    request: pytest.FixtureRequest, farm: Farm, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[JobIndex]:
    """An index in each mode; its first pass is complete."""
    # On a busy machine a read takes longer, and the last known state would be returned instead.
    monkeypatch.setattr(freshness, "KNOWN_DEADLINE_S", 20.0)
    index = make_index(disk, JobsRoot(farm.root), watch=request.param, poll_interval=0.2, max_age=0.5)
    async with index.running():
        await asyncio.wait_for(index.ready.wait(), 20)
        yield index
