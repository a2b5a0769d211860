from __future__ import annotations

import asyncio
import marshal
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from jobsvc.domain.job import Status
from jobsvc.domain.status_record import parse_record
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index.processes import spawn
from jobsvc.index.scan import worker_pool, worker_process
from jobsvc.index.scan.worker_pool import BATCH_JOBS, WorkerPool
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.batch_read import ReadResult
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from tests.eventually import until
from tests.index.job_dirs import Farm
from tests.index.parts import make_index

JOBS = [f"job-{number}" for number in range(3 * BATCH_JOBS)]
LIKE = {"status": "rendering", "owner": "ann"}


@pytest.fixture
def root(farm: Farm) -> JobsRoot:
    """Some jobs with the first of JOBS' names; many others are missing. The pool accepts this few."""
    for job_id in JOBS[:20]:
        farm.put(job_id)
    return JobsRoot(farm.root)


@pytest.fixture(autouse=True)
def _use_workers_for_few_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "MIN_JOBS", len(JOBS))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})


class PoolResults:
    """What the worker processes read, and how many of them failed."""

    def __init__(self, root: JobsRoot, disk: StorageExecutor) -> None:
        self.found: dict[str, ReadResult] = {}
        self.lost = 0
        self.pool = WorkerPool(
            root, disk, lambda found: self.found.update({found.job_id: found}), self._count
        )

    def _count(self) -> None:
        self.lost += 1


def on_each_start(monkeypatch: pytest.MonkeyPatch, do: Callable[[Process], object]) -> list[Process]:
    """Call `do` with each worker process as it starts."""
    started: list[Process] = []
    spawn_process = spawn.spawn

    async def spawn_and_notify(*arguments: str, nice: int) -> Process:
        process = await spawn_process(*arguments, nice=nice)
        started.append(process)
        do(process)
        return process

    monkeypatch.setattr(spawn, "spawn", spawn_and_notify)
    return started


async def test_workers_read_what_the_reader_reads_and_return_the_rest(
    farm: Farm, disk: StorageExecutor
) -> None:
    made = farm.put("made", "completed", outputPath="film.mp4") / "film.mp4"
    made.write_bytes(b"film")
    farm.put("unmade", "completed", outputPath="film.mp4")
    farm.put("ünlike", "halb", createdAt="2026-01-02T03:04:05.6+02:00", metadata={"a": [1, None]})
    farm.put("failed", "error", error="why", framesDone=3, framesTotal=7)
    farm.write_unreadable("spoilt")
    (farm.root / "recent").mkdir()
    (farm.root / "recent" / "status.json").write_bytes(orjson.dumps(LIKE))
    root = JobsRoot(farm.root, [farm.root], {"halb": Status.RENDERING, "error": Status.FAILED} | ALL)
    results = PoolResults(root, disk)
    good = ["made", "unmade", "failed", "recent"]
    before = {job_id: root.read(job_id) for job_id in good}
    left = await results.pool.read([*good, "spoilt", "ünlike", *JOBS])
    assert sorted(left) == sorted(["spoilt", "ünlike", *JOBS])
    assert results.found.keys() == before.keys()
    for job_id, result in results.found.items():  # a file can become stable in the meantime
        assert result.outcome in {before[job_id], root.read(job_id)}
    assert results.lost == 0


ALL = {status.value: status for status in Status}
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
RECORDS = st.fixed_dictionaries(
    {"status": st.sampled_from([*Status]), "owner": TEXT.filter(bool)},
    optional={
        "createdAt": st.sampled_from(["2026-01-02T03:04:05Z", "2026-01-02t03:04:05.123456789-01:00"]),
        "progress": st.floats(0, 100) | st.integers(0, 100),
        "outputPath": TEXT,
        "error": TEXT,
        "framesTotal": st.integers(0, 2**53 - 1),
        "metadata": st.dictionaries(TEXT, TEXT | st.none() | st.booleans()),
    },
)
VERSIONS = st.builds(FileVersion, *[st.integers(0, 2**62)] * 4)


@given(RECORDS, VERSIONS, st.none() | VERSIONS, st.booleans())
def test_snapshot_survives_encoding(
    record: dict[str, Any],
    record_version: FileVersion,
    output: FileVersion | None,
    settled: bool,  # noqa: FBT001 - a table
) -> None:
    reading = JobSnapshot(parse_record("a", record, 0), record_version, output, is_stable=settled)
    again = JobSnapshot.from_tuple("a", marshal.loads(marshal.dumps(reading.to_tuple())))  # noqa: S302 - our own
    assert again == reading
    assert (again.record_version, again.output_version, again.has_output) == (
        record_version,
        output,
        output is not None,
    )
    assert again.job.status is reading.job.status


@pytest.mark.parametrize("cores", [1, 2])
async def test_no_worker_starts_for_few_jobs_or_on_one_core(
    root: JobsRoot, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    started = on_each_start(monkeypatch, lambda _process: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cores)))
    jobs = JOBS if cores == 1 else JOBS[1:]
    assert await PoolResults(root, disk).pool.read(jobs) == jobs
    assert not started


async def test_jobs_of_a_worker_that_dies_or_hangs_are_returned(
    root: JobsRoot, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "BATCH_TIMEOUT_S", 0.2)
    signals = [signal.SIGKILL, signal.SIGSTOP]
    started = on_each_start(monkeypatch, lambda process: process.send_signal(signals.pop()))
    results = PoolResults(root, disk)
    with capture_logs() as logs:
        assert sorted(await results.pool.read(JOBS)) == sorted(JOBS)
    assert not results.found
    assert results.lost == len(started) == 2
    assert [line["event"] for line in logs] == ["worker-failed"] * 2
    assert all(process.returncode == -signal.SIGKILL for process in started)


async def test_jobs_of_a_failed_worker_are_read_by_another_or_returned(
    root: JobsRoot, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker dies before its first reply: only its batches are returned."""
    signals = [signal.SIGCONT, signal.SIGKILL]
    on_each_start(monkeypatch, lambda process: process.send_signal(signals.pop()))
    results = PoolResults(root, disk)
    left = await results.pool.read(JOBS)
    assert results.lost == 1
    assert len(results.found) + len(left) == len(JOBS)
    assert {*results.found} | {*left} == {*JOBS}


async def test_all_jobs_are_returned_if_no_process_can_start(
    root: JobsRoot, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    results = PoolResults(root, disk)
    assert [*await results.pool.read(JOBS)] == JOBS
    assert results.lost == 2


async def test_last_line_of_a_failed_worker_is_logged(
    root: JobsRoot, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobsRoot, "arguments", lambda _root: ["no JSON", "/"])
    with capture_logs() as logs:
        assert sorted(await PoolResults(root, disk).pool.read(JOBS)) == sorted(JOBS)
    assert all(line["event"] == "worker-failed" and "JSONDecodeError" in line["reason"] for line in logs)


async def test_cancelled_read_ends_the_workers(
    root: JobsRoot, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = on_each_start(monkeypatch, lambda process: process.send_signal(signal.SIGSTOP))
    reading = asyncio.create_task(PoolResults(root, disk).pool.read(JOBS))
    await until(lambda: len(started) == 2)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until(lambda: all(process.returncode is not None for process in started))


async def test_index_built_by_workers_has_all_jobs(
    farm: Farm, disk: StorageExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = on_each_start(monkeypatch, lambda _process: None)
    for job_id in JOBS:
        farm.put(job_id)
    farm.write_unreadable("spoilt")
    index = make_index(disk, JobsRoot(farm.root), watch=WatchMode.POLL)
    async with index.running():
        await asyncio.wait_for(index.ready.wait(), 30)
        assert {*index.catalogue.entries} == {*JOBS}
        assert {*index.catalogue.unreadable} == {"spoilt"}
    assert started


def test_worker_ends_with_its_standard_input(root: JobsRoot) -> None:
    command = [sys.executable, "-m", "jobsvc.index.scan.worker_process", *root.arguments()]
    job_ids = orjson.dumps(JOBS[:2]) + b"\n"
    before = [root.read(job_id) for job_id in JOBS[:2]]
    reply = subprocess.run(command, input=job_ids, capture_output=True, check=True, timeout=20).stdout
    size = int.from_bytes(reply[: worker_process.LENGTH_BYTES], "little")
    assert len(reply) == worker_process.LENGTH_BYTES + size
    found = worker_process.decode_reply(JOBS[:2], reply[worker_process.LENGTH_BYTES :])
    after = [root.read(job_id) for job_id in JOBS[:2]]  # their versions may have become stable meanwhile
    assert all(one.outcome in either for one, *either in zip(found, before, after, strict=True))
