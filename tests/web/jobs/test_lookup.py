"""Ownership checks while the root still counts as unavailable but the disk responds again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsvc.domain.access import JOBS_READ, Token
from jobsvc.domain.errors import JobNotFound, StorageUnavailable
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.web.jobs.lookup import get_visible_job
from tests.conftest import MakeJob
from tests.index.parts import Parts

ANNA = Token("t", "anna", frozenset({JOBS_READ}), bytes(32), 0.0)
BERT = Token("u", "bert", frozenset({JOBS_READ}), bytes(32), 0.0)


@pytest.fixture
def disk() -> Iterator[StorageExecutor]:
    disk = StorageExecutor()
    yield disk
    disk.close()


def take_away(root: Path) -> None:
    root.rename(root.with_name("unmounted"))


@pytest.fixture
async def unavailable_index(make_job: MakeJob, jobs_root: Path, disk: StorageExecutor) -> Freshness:
    """A catalogue with anna's job-1, whose root has become unavailable since."""
    make_job()
    parts = Parts(disk, JobsRoot(jobs_root))
    freshness = parts.freshness
    assert not (await get_visible_job(freshness, ANNA, "job-1")).stale
    parts.root_check.mark_unavailable("Input/output error", time.monotonic())
    return freshness


@pytest.mark.parametrize("force", [True, False])
async def test_job_of_another_owner_is_unknown_as_soon_as_the_disk_responds(
    unavailable_index: Freshness, *, force: bool
) -> None:
    for job_id in ("job-1", "job-2"):
        with pytest.raises(JobNotFound):
            await get_visible_job(unavailable_index, BERT, job_id, force=force)


@pytest.mark.parametrize("force", [True, False])
async def test_both_are_unavailable_while_the_disk_does_not_respond(
    unavailable_index: Freshness, jobs_root: Path, *, force: bool
) -> None:
    take_away(jobs_root)
    for job_id in ("job-1", "job-2"):
        with pytest.raises(StorageUnavailable):
            await get_visible_job(unavailable_index, BERT, job_id, force=force)
    assert (await get_visible_job(unavailable_index, ANNA, "job-1", force=force)).stale
