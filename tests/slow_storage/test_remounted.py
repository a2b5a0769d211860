"""A share that is unmounted, or whose server dies, and is mounted again while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import Service
from tests.slow_storage.fuse_mount import FaultyStorage
from tests.slow_storage.pending_downloads import FILM, wait_for_answer, warm_up

ASK_THE_DISK: Final = ("Cache-Control", "no-cache")


async def ready(service: Service) -> int:
    return (await service.get("/readyz", token=None)).status


async def progress(service: Service, job_id: str, *fields: tuple[str, str]) -> object:
    """Return a job's progress, None if there is no such job; responses not from the disk are
    distinguished.
    """
    answer = await service.get(f"/api/jobs/{job_id}", *fields)
    if answer.status == 404:
        return None
    assert answer.status == 200
    return "last known" if "Cache-Status" in answer.headers else answer.json()["progress"]


def unmounted(storage: FaultyStorage) -> None:
    storage.unmount()


def dead(storage: FaultyStorage) -> None:
    """The mount exists, and every call on it fails with ENOTCONN."""
    storage.kill()


@pytest.mark.parametrize("away", [unmounted, dead])
async def test_last_known_state_is_served_until_the_share_returns(
    make_job: MakeJob, storage: FaultyStorage, serve: Serve, away: Callable[[FaultyStorage], None]
) -> None:
    make_job("good", output=FILM)
    for job_id in ("changed", "removed"):
        make_job(job_id, status="rendering", progress=1)
    service = await serve(poll_interval=0.1)
    await warm_up(service, "good", "changed", "removed")
    await wait_for_answer(partial(ready, service), 200)
    await asyncio.to_thread(away, storage)
    await wait_for_answer(partial(ready, service), 503)
    for fields in ((), (ASK_THE_DISK,)):
        for job_id in ("good", "changed", "removed"):
            assert await progress(service, job_id, *fields) == "last known"
    assert (await service.get("/api/jobs/unknown")).status == 503
    assert (await service.download("good")).status == 503
    make_job("changed", status="rendering", progress=2)
    make_job("new", status="rendering", progress=3)
    (storage.folder / "removed").rename(storage.folder.with_name("removed"))
    await asyncio.to_thread(storage.unmount)
    await asyncio.to_thread(storage.mount)
    for job_id, there in (("changed", 2), ("new", 3)):
        assert await progress(service, job_id, ASK_THE_DISK) == there
    assert (await service.download("good")).body == FILM
    # After the mount it may be another device; its absences count once the root check has recognized it.
    await wait_for_answer(partial(ready, service), 200)
    assert await progress(service, "removed", ASK_THE_DISK) is None
    make_job("changed", status="rendering", progress=4)
    await wait_for_answer(partial(progress, service, "changed"), 4)
