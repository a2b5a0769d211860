"""A job that the farm no longer writes is shown as stalled everywhere, without a request having to ask."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Final

from tests.clients.sse_client import open_event_stream
from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service

JOB: Final = "/api/jobs/job-1"
RECORD: Final[dict[str, Any]] = {
    "status": "rendering",
    **dict.fromkeys(("createdAt", "updatedAt"), "2026-01-01T00:00:00Z"),
}
"""A record that stays the same when it is written again, or its file gets another time."""
QUICK: Final[dict[str, Any]] = {"poll_interval": 0.05, "stalled_after": 60.0}


def set_age(folder: Path, seconds: float) -> None:
    """Let the record be this old."""
    record = folder / "status.json"
    at = record.stat().st_ctime - seconds
    os.utime(record, (at, at))


async def listed(service: Service) -> list[str]:
    """List the stalled jobs, once every job was read."""
    while (await service.get("/readyz")).status != 200:
        await pause()
    answer = await service.get("/api/jobs?stalled=true")
    assert answer.status == 200, answer.body
    return [job["id"] for job in answer.json()["jobs"]]


async def test_status_and_list_tell_a_stalled_job(serve: Serve, make_job: MakeJob) -> None:
    set_age(make_job(status="rendering"), 60)
    make_job("job-2", status="rendering")
    set_age(make_job("job-3", output=b"film"), 60)
    service = await serve(**QUICK)
    assert (await service.get(JOB)).json()["stalled"] is True
    for job_id in ("job-2", "job-3"):
        assert "stalled" not in (await service.get(f"/api/jobs/{job_id}")).json()
    assert await listed(service) == ["job-1"]
    stalled = {job["id"]: "stalled" in job for job in (await service.get("/api/jobs")).json()["jobs"]}
    assert stalled == {"job-1": True, "job-2": False, "job-3": False}
    assert await service.metric("jobsvc_jobs_stalled") == 1


async def test_streams_and_long_polls_report_that_a_job_stalls(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(**RECORD)
    service = await serve(**QUICK)
    etag = (await service.get(JOB)).headers["ETag"]
    async with (
        open_event_stream(service, f"{JOB}/events") as one,
        open_event_stream(service, "/api/events") as all_jobs,
    ):
        await one.next_named("job")
        await all_jobs.next_named("present")
        async with asyncio.timeout(20):
            set_age(folder, 59)
            answer = await service.get(f"{JOB}?wait=20", ("If-None-Match", etag))
            assert answer.json()["stalled"] is True
            for stream in (one, all_jobs):
                assert (await stream.next_named("job")).json()["stalled"] is True


async def test_job_that_is_written_again_is_not_stalled(serve: Serve, make_job: MakeJob) -> None:
    set_age(make_job(**RECORD), 60)
    service = await serve(**QUICK)
    async with open_event_stream(service, f"{JOB}/events") as stream:
        assert (await stream.next_named("job")).json()["stalled"] is True
        make_job(**RECORD)
        assert "stalled" not in (await stream.next_named("job")).json()
    assert not await listed(service)


async def test_other_value_than_true_is_an_error(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering")
    answer = await (await serve()).get("/api/jobs?stalled=false")
    assert (answer.status, answer.json()["code"]) == (400, "bad-request")
    assert "stalled: 'false' is not true." in answer.json()["detail"]
