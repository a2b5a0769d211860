from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobsvc.domain.errors import JobNotFound, OutputMissing, StorageUnavailable
from jobsvc.domain.status_record import BadRecord
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.safe_open import OpenFile, PathNotFound
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.threads.thread_pool import expire
from tests.checks.open_fds import open_paths
from tests.conftest import MakeJob
from tests.eventually import until

pytestmark = pytest.mark.both_loops


class Resource:
    """A resource that is passed to a call."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def faults() -> list[tuple[str, Exception]]:
    return []


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """An event that calls wait for; set at the end."""
    release = threading.Event()
    yield release
    release.set()


@pytest.fixture
def disk(faults: list[tuple[str, Exception]], release: threading.Event) -> Iterator[StorageExecutor]:
    disk = StorageExecutor(on_fault=lambda key, fault: faults.append((key, fault)), deadline=5)
    yield disk
    release.set()
    disk.close()


def fail(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


async def test_metadata_and_data_calls_run_in_threads(disk: StorageExecutor) -> None:
    resource = Resource()
    assert (await disk.run_metadata("a", threading.current_thread)).name.startswith("jobsvc-metadata")
    assert (await disk.run_data("a", threading.current_thread, resource)).name.startswith("jobsvc-data")
    assert resource.closed == 0


async def test_executor_is_idle_once_no_metadata_call_is_in_progress(
    disk: StorageExecutor, release: threading.Event
) -> None:
    looks = [asyncio.create_task(disk.run_metadata(job_id, release.wait)) for job_id in "ab"]
    calm = asyncio.create_task(disk.wait_idle(60))
    await until(lambda: disk._metadata_calls == 2)
    await disk.wait_idle(0)
    assert not any(task.done() for task in (*looks, calm))
    release.set()
    await asyncio.gather(calm, *looks)


async def test_executor_is_idle_after_a_failed_or_abandoned_call(
    disk: StorageExecutor, release: threading.Event
) -> None:
    with pytest.raises(StorageUnavailable):
        await disk.run_metadata("a", fail(OSError(5, "broken")))
    abandoned = asyncio.create_task(disk.run_metadata("a", release.wait))
    await until(lambda: disk._metadata_calls == 1)
    abandoned.cancel()
    await asyncio.wait([abandoned])
    async with asyncio.timeout(5):
        await disk.wait_idle(60)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), OSError(5, "broken"), TimeoutError("slow")])
async def test_system_error_is_storage_unavailable_and_reported(
    disk: StorageExecutor, faults: list[tuple[str, Exception]], error: OSError
) -> None:
    with pytest.raises(StorageUnavailable, match="reported an error") as unavailable:
        await disk.run_metadata("job-1", fail(error))
    assert unavailable.value.__cause__ is error
    assert unavailable.value.retry_after == 5
    assert "gone" not in unavailable.value.detail
    assert faults == [("job-1", error)]


@pytest.mark.parametrize(
    "error", [PathNotFound(), BadRecord("status: missing", "status"), OutputMissing(), JobNotFound()]
)
async def test_errors_of_the_reader_pass_through_unreported(
    disk: StorageExecutor, faults: list[tuple[str, Exception]], error: Exception
) -> None:
    with pytest.raises(type(error)) as raised:
        await disk.run_metadata("job-1", fail(error))
    assert raised.value is error
    assert faults == []


async def test_timeout_is_storage_unavailable_and_reported(
    disk: StorageExecutor, faults: list[tuple[str, Exception]], release: threading.Event
) -> None:
    with pytest.raises(StorageUnavailable, match="in time") as silent:
        await disk.run_metadata("job-1", release.wait, deadline=0.05)
    assert faults == [("job-1", silent.value)]


async def test_deadline_works_without_an_error_callback(release: threading.Event) -> None:
    quick = StorageExecutor(deadline=0.05)
    with pytest.raises(StorageUnavailable, match="in time"):
        await quick.run_metadata("job-1", release.wait)
    with pytest.raises(StorageUnavailable, match="reported an error"):
        await quick.run_metadata("job-1", fail(OSError(5, "broken")), deadline=20)
    quick.close()


@pytest.mark.alone
async def test_hanging_jobs_delay_no_other_job_and_no_data_call(
    disk: StorageExecutor, release: threading.Event
) -> None:
    hung = [asyncio.ensure_future(disk.run_metadata(f"hung {n % 5}", release.wait)) for n in range(40)]
    await asyncio.sleep(0)
    started_at = time.monotonic()
    for number in range(20):
        assert await disk.run_metadata(f"good {number}", lambda: 1) == 1
    assert await disk.run_data("hung 0", lambda: 2, Resource()) == 2
    assert time.monotonic() - started_at < 1
    release.set()
    assert all(await asyncio.gather(*hung))


async def test_background_calls_have_own_threads_and_their_errors_are_reported(
    disk: StorageExecutor, faults: list[tuple[str, Exception]]
) -> None:
    assert (await disk.run_background("a", threading.current_thread)).name.startswith("jobsvc-background")
    resource, broken = Resource(), OSError(5, "broken")
    with pytest.raises(StorageUnavailable, match="reported an error"):
        await disk.run_background("a", fail(broken), resource)
    assert faults == [("a", broken)]
    await until(lambda: resource.closed == 1)


async def test_hanging_background_call_delays_no_other_call(release: threading.Event) -> None:
    disk = StorageExecutor(background_deadline=0.05)
    for number in range(8):
        with pytest.raises(StorageUnavailable, match="in time"):
            await disk.run_background(f"hung {number}", release.wait)
    assert await disk.run_metadata("hung 0", lambda: 1) == 1
    assert await disk.run_data("hung 0", lambda: 2, Resource()) == 2
    release.set()
    disk.close()
    with pytest.raises(StorageUnavailable):
        await disk.run_background("a", os.getpid)


async def test_hanging_metadata_and_data_calls_count_as_stuck(
    disk: StorageExecutor, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pool in (disk._metadata, disk._data):
        monkeypatch.setattr(pool, "_stuck_after", 0.02)
    assert disk.stuck_threads() == 0
    calls = [
        asyncio.ensure_future(disk.run_metadata("a", release.wait)),
        asyncio.ensure_future(disk.run_data("a", release.wait, Resource())),
    ]
    await until(lambda: disk.stuck_threads() == 2)
    release.set()
    await asyncio.gather(*calls)
    assert disk.stuck_threads() == 0


async def test_file_opened_too_late_is_closed(
    disk: StorageExecutor, release: threading.Event, make_job: MakeJob, jobs_root: Path
) -> None:
    make_job(output=b"film")
    root = JobsRoot(jobs_root)
    job = (await disk.run_metadata("job-1", lambda: root.read("job-1"))).job

    def open_late() -> OpenFile:
        file = root.open_output(job)
        release.wait()
        return file

    for leave in ("deadline", "cancel"):
        release.clear()
        call = asyncio.ensure_future(disk.run_metadata("job-1", open_late, deadline=20))
        await until(lambda: open_paths(jobs_root))
        if leave == "cancel":
            call.cancel()
        else:
            (opening,) = disk._metadata._in_flight
            expire(opening.future)
        await asyncio.wait([call])
        assert open_paths(jobs_root)
        release.set()
        await until(lambda: not open_paths(jobs_root))
        with pytest.raises((StorageUnavailable, asyncio.CancelledError)):
            call.result()


async def test_released_file_is_closed_outside_the_loop(
    disk: StorageExecutor, make_job: MakeJob, jobs_root: Path
) -> None:
    make_job(output=b"film")
    root = JobsRoot(jobs_root)
    job = (await disk.run_metadata("job-1", lambda: root.read("job-1"))).job
    file = await disk.run_metadata("job-1", lambda: root.open_output(job))
    assert len(open_paths(jobs_root)) == 1
    disk.close_later(file)
    await until(lambda: not open_paths(jobs_root))


@pytest.mark.alone
async def test_closed_executor_refuses_immediately(disk: StorageExecutor, release: threading.Event) -> None:
    hung = asyncio.ensure_future(disk.run_metadata("a", release.wait))
    await asyncio.sleep(0)
    started_at = time.monotonic()
    disk.close()
    resource = Resource()
    with pytest.raises(StorageUnavailable):
        await disk.run_metadata("a", os.getpid)
    with pytest.raises(StorageUnavailable):
        await disk.run_data("a", os.getpid, resource)
    assert time.monotonic() - started_at < 1
    await until(lambda: resource.closed == 1)
    release.set()
    assert await hung
