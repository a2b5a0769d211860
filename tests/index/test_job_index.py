from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from jobsvc.domain.errors import JobNotFound
from jobsvc.domain.job import Status
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index.job_index import JobIndex
from jobsvc.index.scan import reconciler
from jobsvc.index.watch import supervisor
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import RootScan, list_job_ids
from jobsvc.storage.jobs.snapshot import JobSnapshot
from tests.eventually import until
from tests.index import job_dirs as farm_program
from tests.index.job_dirs import Farm
from tests.index.parts import make_index, metric


def progress(index: JobIndex, job_id: str) -> float | None:
    entry = index.catalogue.get(job_id)
    return None if entry is None else entry.snapshot.job.progress


async def test_first_index_contains_every_job(farm: Farm, disk: StorageExecutor) -> None:
    for number in range(1200):
        farm.put(f"job-{number}", "completed" if number % 3 else "queued")
    (farm.root / ".hidden").mkdir()
    index = make_index(disk, JobsRoot(farm.root), watch=WatchMode.POLL)
    async with index.running():
        await asyncio.wait_for(index.ready.wait(), 20)
        assert len(index.catalogue) == 1200
        assert index.catalogue.counts[Status.QUEUED] == 400
        assert index.stats.ignored_names == 1


async def test_change_is_noticed_without_a_request(farm: Farm, index: JobIndex) -> None:
    farm.put("a", progress=1)
    await asyncio.wait_for(asyncio.shield(index.freshness.refresh("a")), 5)
    farm.put("a", progress=2)
    await until(lambda: progress(index, "a") == 2)


async def test_removed_job_disappears_without_a_request(farm: Farm, index: JobIndex) -> None:
    farm.put("a")
    farm.put("b")
    await index.freshness.get("a")
    await index.freshness.get("b")
    farm.remove("a")
    await until(lambda: index.catalogue.get("a") is None)
    with pytest.raises(JobNotFound):
        await index.freshness.get("a")


@pytest.mark.parametrize("index", [WatchMode.EVENTS], indirect=True)
async def test_all_new_directories_are_found_however_many_appear_together(
    farm: Farm, index: JobIndex
) -> None:
    await until(lambda: index.is_covered)
    for number in range(300):
        farm.put(f"new-{number}")
    await until(lambda: len(index.catalogue) == 300)


@pytest.mark.parametrize("index", [WatchMode.EVENTS], indirect=True)
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
async def test_watcher_that_dies_or_hangs_is_replaced(
    farm: Farm, index: JobIndex, sign: signal.Signals
) -> None:
    farm.put("a", progress=1)
    await until(lambda: index.is_covered)
    first = index.watcher_pid
    assert first is not None
    os.kill(first, sign)
    await until(lambda: not index.is_covered)
    farm.put("a", progress=2)
    assert (await index.freshness.get("a", force=True)).snapshot.job.progress == 2
    await until(lambda: index.is_covered and index.watcher_pid not in {None, first})
    assert metric(index, "watcher_restarts_total") == 1
    farm.put("a", progress=3)
    await until(lambda: progress(index, "a") == 3)


async def test_jobs_are_kept_while_the_root_is_missing(farm: Farm, index: JobIndex) -> None:
    for job_id in ("a", "b"):
        farm.put(job_id, progress=1)
        await index.freshness.get(job_id)
    away = farm.root.with_name("unmounted")
    farm.root.rename(away)
    await until(lambda: index.storage_unavailable_reason is not None)
    farm.root.mkdir()
    await until(lambda: index.storage_unavailable_reason == "the jobs root is empty")
    assert (await index.freshness.get("a")).stale
    farm.root.rmdir()
    away.rename(farm.root)
    await until(lambda: index.storage_unavailable_reason is None)
    farm.put("a", progress=2)
    await until(lambda: progress(index, "a") == 2)
    assert not (await index.freshness.get("a")).stale


async def test_hanging_job_keeps_no_other_out_of_the_index(farm: Farm) -> None:
    release = threading.Event()

    class Root(JobsRoot):
        def read(self, job_id: str, known: JobSnapshot | None = None) -> JobSnapshot:
            if job_id == "hung":
                release.wait(30)
            return super().read(job_id, known)

    for job_id in ("a", "hung", "z"):
        farm.put(job_id)
    disk = StorageExecutor(deadline=2)
    try:
        index = make_index(disk, Root(farm.root), watch=WatchMode.POLL)
        started_at = time.monotonic()
        async with index.running():
            await asyncio.wait_for(index.ready.wait(), 20)
            assert set(index.catalogue.entries) == {"a", "z"}
        assert time.monotonic() - started_at < 8
    finally:
        release.set()
        disk.close()


async def test_listing_may_take_longer_than_the_read_of_a_job(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a million names; aborted and restarted each time, the index would never be complete."""

    def slowly(root: Path) -> RootScan:
        threading.Event().wait(2.5)
        return list_job_ids(root)

    monkeypatch.setattr(reconciler, "list_job_ids", slowly)
    farm.put("a")
    disk = StorageExecutor(deadline=1.5)
    try:
        index = make_index(disk, JobsRoot(farm.root), watch=WatchMode.POLL)
        async with index.running():
            await asyncio.wait_for(index.ready.wait(), 20)
            assert set(index.catalogue.entries) == {"a"}
    finally:
        disk.close()


@pytest.fixture
def patient_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that is only slow, as on a busy machine, is not replaced."""
    monkeypatch.setattr(supervisor, "SILENCE_TIMEOUT_S", 60.0)


@pytest.fixture
async def watched(farm: Farm, disk: StorageExecutor, patient_supervisor: None) -> AsyncIterator[JobIndex]:
    """A healthy index with events that polls so rarely that only events show changes."""
    farm.put("anchor")
    index = make_index(disk, JobsRoot(farm.root), watch=WatchMode.EVENTS, poll_interval=1000)
    async with index.running():
        await until(lambda: index.is_covered and index.registry.limit.used == len(index.catalogue))
        yield index


@pytest.mark.alone
async def test_unchanged_watched_job_is_served_from_memory(farm: Farm, watched: JobIndex) -> None:
    entry = watched.catalogue.entries["anchor"]
    await until(lambda: watched._coverage.is_covered(entry))
    verified = entry.verified_at
    await until(lambda: time.monotonic() - verified > 1.2)
    answer = await watched.freshness.get("anchor")
    assert entry.verified_at == verified
    assert answer.age < 1


async def test_30000_changes_in_a_burst_are_all_noticed(farm: Farm, watched: JobIndex) -> None:
    for number in range(300):
        farm.put(f"job-{number}")
    await until(lambda: len(watched.catalogue) == 301)
    arguments = [sys.executable, farm_program.__file__, str(farm.root), "300", "100"]
    await asyncio.to_thread(subprocess.check_call, arguments)
    jobs = [entry for job_id, entry in watched.catalogue.entries.items() if job_id != "anchor"]
    await until(lambda: all(entry.snapshot.job.details.attempt == 99 for entry in jobs))


@pytest.mark.usefixtures("patient_supervisor")
async def test_changes_whose_events_a_stopped_watcher_lost_are_found(
    farm: Farm, disk: StorageExecutor
) -> None:
    """The kernel queues 16,384 events (inotify(7)): there is none for the quiet job."""
    farm.put("loud")
    farm.put("quiet")
    index = make_index(disk, JobsRoot(farm.root), watch=WatchMode.EVENTS, poll_interval=1000)
    async with index.running():
        await until(lambda: index.is_covered and index.registry.limit.used == 2)
        assert index.watcher_pid is not None
        os.kill(index.watcher_pid, signal.SIGSTOP)
        stopped = time.monotonic()
        for attempt in range(6000):
            farm.put("loud", attempt=attempt)
        farm.put("quiet", "completed")
        await until(lambda: time.monotonic() - stopped > 1.5)
        os.kill(index.watcher_pid, signal.SIGCONT)
        await until(lambda: index.catalogue.counts[Status.COMPLETED] == 1)
        assert index.catalogue.entries["loud"].snapshot.job.details.attempt == 5999


async def test_name_that_is_not_utf_8_affects_no_job(farm: Farm, watched: JobIndex) -> None:
    farm.put("b")
    await until(lambda: "b" in watched.catalogue.entries)
    farm.add_non_utf8_name("anchor")
    farm.put("anchor", progress=7)
    farm.put("b", progress=7)
    await until(lambda: progress(watched, "b") == 7)
    assert (await watched.freshness.get("anchor", force=True)).snapshot.job.progress == 7
    assert metric(watched, "watcher_restarts_total") == 0


async def test_names_in_the_root_that_are_not_utf_8_do_not_restart_the_watcher(
    farm: Farm, watched: JobIndex
) -> None:
    for number in range(20):
        (farm.root / os.fsdecode(b"\xff%d" % number)).mkdir()
        farm.put(f"job-{number}")
        await until(lambda number=number: f"job-{number}" in watched.catalogue.entries)  # type: ignore[misc]  # bound now
    assert watched.is_covered
    assert metric(watched, "watcher_restarts_total") == 0


async def test_change_without_an_event_restarts_the_watcher(farm: Farm, watched: JobIndex) -> None:
    entry = watched.catalogue.entries["anchor"]
    await until(lambda: watched._coverage.is_covered(entry))
    watched.updater.store("anchor", JobsRoot(farm.root).read("anchor"), time.monotonic())
    entry.snapshot = entry.snapshot.with_job(replace(entry.snapshot.job, progress=99))
    await watched.freshness.get("anchor", force=True)
    await until(lambda: metric(watched, "watcher_missed_events_total") == 1)
    await until(lambda: metric(watched, "watcher_restarts_total") == 1)
    await until(lambda: watched.is_covered)


async def test_jobs_above_the_watch_limit_are_read_on_request(
    farm: Farm, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobsvc.index.job_index.watch_limit", lambda: 11)
    for number in range(30):
        farm.put(f"job-{number}", "failed")
    index = make_index(disk, JobsRoot(farm.root), watch=WatchMode.EVENTS, max_age=0.2)
    async with index.running():
        await until(lambda: index.is_covered and index.registry.limit.reached)
        for number in range(30):
            farm.put(f"job-{number}", progress=5)
        await until(lambda: index.catalogue.counts[Status.FAILED] < 30)
        stopped = time.monotonic()
        await until(lambda: time.monotonic() - stopped > 0.3)
        for number in range(30):
            assert (await index.freshness.get(f"job-{number}")).snapshot.job.progress == 5
    assert index.registry.limit.used <= 11


async def test_storage_that_fails_everywhere_is_unavailable(
    farm: Farm, index: JobIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.put("a")
    await index.freshness.get("a")

    def fault(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(JobsRoot, "read", fault)
        broken.setattr("jobsvc.index.scan.root_monitor.stat_root", fault)
        await until(lambda: index.storage_unavailable_reason is not None)
        assert (await index.freshness.get("a")).stale
    await until(lambda: index.storage_unavailable_reason is None)
    assert not (await index.freshness.get("a", force=True)).stale


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount")
async def test_other_device_at_the_root_is_unavailable_storage_until_it_is_unmounted(
    farm: Farm, index: JobIndex
) -> None:
    for job_id in ("a", "b"):
        farm.put(job_id, progress=1)
        await index.freshness.get(job_id)
    await until(lambda: index._root_check._root_stat is not None)
    if await asyncio.to_thread(subprocess.call, ["mount", "-t", "tmpfs", "none", farm.root]):
        pytest.skip("mounting is not allowed here")
    try:
        farm.put("stray")
        await until(lambda: index.storage_unavailable_reason == "the jobs root is on another device")
        assert (await index.freshness.get("a")).stale
    finally:
        await asyncio.to_thread(subprocess.check_call, ["umount", "-l", farm.root])
    await until(lambda: index.storage_unavailable_reason is None)
    farm.put("a", progress=2)
    await until(lambda: progress(index, "a") == 2)


def mount(*words: str | Path) -> None:
    if subprocess.call(["mount", *words]):
        pytest.skip("mounting is not allowed here")


@contextmanager
def share_with(farm: Farm, scratch: Path, *, another_device: bool) -> Iterator[Callable[[], Farm]]:
    """Mount a share at the farm's root; yield a function that unmounts it and returns the share to mount
    again.
    """
    shares = Farm(scratch / "share"), Farm(scratch / "moved")
    with ExitStack() as stack:
        if another_device:
            mount("-t", "tmpfs", "none", shares[1].root)
            stack.callback(subprocess.call, ["umount", "-l", shares[1].root])
        mount("--bind", shares[0].root, farm.root)
        stack.callback(subprocess.call, ["umount", "-q", "-l", farm.root])

        def unmounted() -> Farm:
            subprocess.check_call(["umount", "-l", farm.root])
            if another_device:
                shutil.copytree(shares[0].root, shares[1].root, dirs_exist_ok=True)
            return shares[another_device]

        yield unmounted


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount")
@pytest.mark.parametrize("another_device", [False, True])
async def test_unmounted_root_is_unavailable_until_it_is_mounted_again(
    farm: Farm, index: JobIndex, tmp_path: Path, *, another_device: bool
) -> None:
    """After the mount it may be another device; it is recognized by its known jobs."""
    with share_with(farm, tmp_path, another_device=another_device) as unmounted:
        for job_id in ("a", "b"):
            farm.put(job_id, progress=1)
            await index.freshness.get(job_id)
        await until(lambda: index._root_check._root_stat is not None)
        share = await asyncio.to_thread(unmounted)
        await until(lambda: index.storage_unavailable_reason == "the jobs root is empty")
        assert (await index.freshness.get("a")).stale
        share.put("a", progress=2)
        await asyncio.to_thread(shutil.rmtree, share.root / "b")
        await asyncio.to_thread(mount, "--bind", share.root, farm.root)
        assert (await index.freshness.get("a", force=True)).snapshot.job.progress == 2
        await until(
            lambda: index.storage_unavailable_reason is None and set(index.catalogue.entries) == {"a"}
        )


async def test_recreated_root_is_the_root_afterwards(farm: Farm, watched: JobIndex) -> None:
    """With events alone, as `watched` has them: those of the new directory."""
    for job_id in ("a", "b"):
        farm.put(job_id, progress=1)
    await until(lambda: len(watched.catalogue) == 3 and watched._root_check._root_stat is not None)
    farm.root.rename(farm.root.with_name("removed"))
    await until(lambda: watched.storage_unavailable_reason is not None)
    assert (await watched.freshness.get("a")).stale
    farm.root.mkdir()
    await until(lambda: watched.storage_unavailable_reason == "the jobs root is empty")
    for job_id in ("a", "c"):
        farm.put(job_id, progress=2)
    await until(
        lambda: watched.storage_unavailable_reason is None and set(watched.catalogue.entries) == {"a", "c"}
    )
    await until(lambda: watched.is_covered and watched.registry.limit.used == 2)
    farm.put("a", progress=3)
    farm.put("d", progress=3)
    farm.remove("c")
    await until(lambda: (progress(watched, "a"), progress(watched, "d")) == (3, 3))
    await until(lambda: watched.catalogue.get("c") is None)


async def test_last_job_can_be_removed(farm: Farm, index: JobIndex) -> None:
    farm.put("a")
    await index.freshness.get("a")
    await until(lambda: index._root_check._root_stat is not None)
    farm.remove("a")
    await until(lambda: index.catalogue.get("a") is None)
    assert index.storage_unavailable_reason is None


@pytest.mark.parametrize("index", [WatchMode.POLL], indirect=True)
async def test_output_written_after_its_record_is_noticed_without_a_request(
    farm: Farm, index: JobIndex
) -> None:
    folder = farm.put("a", "completed", outputPath="film.mp4")
    assert not (await index.freshness.get("a")).snapshot.output_version
    (folder / "film.mp4").write_bytes(b"film")
    await until(lambda: index.catalogue.entries["a"].snapshot.output_version)


async def test_index_exports_metrics(farm: Farm, disk: StorageExecutor) -> None:
    metrics = Metrics()
    farm.put("a", "failed")
    farm.write_unreadable("b")
    index = make_index(disk, JobsRoot(farm.root), watch=WatchMode.POLL, metrics=metrics)
    async with index.running():
        await asyncio.wait_for(index.ready.wait(), 20)
        text = metrics.exposition()[0].decode()
    assert 'jobsvc_index_jobs{status="failed"} 1.0' in text
    assert "jobsvc_records_unreadable_now 1.0" in text
    assert "jobsvc_reconcile_duration_seconds_count 1.0" in text
    assert "jobsvc_watcher_healthy 0.0" in text


@pytest.mark.parametrize(
    ("cpu_seconds", "pause"), [(0.1, 5.0), (3.0, 150.0), (60.0, reconciler.MAX_RECONCILE_INTERVAL_S)]
)
def test_reconcile_without_a_watcher_uses_a_limited_share_of_the_cpu(
    disk: StorageExecutor, cpu_seconds: float, pause: float
) -> None:
    index = make_index(disk, JobsRoot(Path("/nowhere")), watch=WatchMode.POLL)
    index.stats.reconcile_seconds = 1.0
    index._reconciler._cpu_seconds = cpu_seconds
    assert index._reconciler._pause() == pytest.approx(pause)
