"""`createdAt` of jobs whose farm leaves it out: it does not change, nor does the order of lists."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jobsvc.storage.jobs import record_reader
from jobsvc.storage.jobs.reader import JobsRoot
from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service


def write_later(make_job: MakeJob, job_id: str = "job-1", progress: int = 0) -> None:
    """Write a job again, after the next tick of the file system's clock."""
    time.sleep(0.02)
    make_job(job_id, status="rendering", progress=progress)


async def listed(service: Service) -> list[tuple[str, str]]:
    while (answer := await service.get("/api/jobs")).status != 200:
        await pause()
    return [(job["id"], job["createdAt"]) for job in answer.json()["jobs"]]


@pytest.mark.parametrize("has_birth_times", [True, False])
async def test_list_keeps_its_order_while_jobs_are_written(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, *, has_birth_times: bool
) -> None:
    if not has_birth_times:
        monkeypatch.setattr(record_reader, "birth_time", lambda _fd: None)
    for job_id in "abc":
        write_later(make_job, job_id)
    service = await serve(poll_interval=0.05)
    before = await listed(service)
    assert [job_id for job_id, _ in before] == ["c", "b", "a"]
    for progress, job_id in enumerate("bacab", 1):
        write_later(make_job, job_id, progress)
        answer = await service.get(f"/api/jobs/{job_id}", ("Cache-Control", "no-cache"))
        assert answer.json()["progress"] == progress
        assert answer.json()["createdAt"] == dict(before)[job_id]
    assert await listed(service) == before


def test_created_at_survives_a_restart_where_the_file_system_has_birth_times(
    jobs_root: Path, make_job: MakeJob
) -> None:
    born = make_job(status="queued").stat().st_mtime_ns // 1000
    first = JobsRoot(jobs_root).read("job-1").job
    if abs(first.created_order - born) > 1_000_000:
        pytest.skip("this file system has no birth times")
    write_later(make_job, progress=5)
    second = JobsRoot(jobs_root).read("job-1").job
    assert second.created_order == first.created_order < second.updated_order


def test_created_at_is_not_later_than_a_record_that_was_restored_from_a_backup(
    jobs_root: Path, make_job: MakeJob
) -> None:
    record = make_job(status="completed") / "status.json"
    os.utime(record, (1_000_000_000, 1_000_000_000))
    job = JobsRoot(jobs_root).read("job-1").job
    assert job.created_at == job.updated_at == "2001-09-09T01:46:40.000Z"


def test_created_at_of_the_farm_comes_first(
    jobs_root: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(record_reader, "birth_time", calls.append)
    make_job(status="queued", createdAt="2026-01-02T03:04:05Z")
    assert JobsRoot(jobs_root).read("job-1").job.created_at == "2026-01-02T03:04:05Z"
    assert not calls
