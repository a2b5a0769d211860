"""Two services on one jobs root, started one after the other: what a client has of one is valid at the other.

Streams of one job and followed logs at another process: also test_events.py and test_log_follow.py.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import Any

import pytest

from jobsvc.index.catalogue import change_journal
from jobsvc.web.streaming import event_stream
from tests.clients.sse_client import EventStream, open_event_stream
from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service

ALL = "/api/events"
JOB = "/api/jobs/job-1"
MARGIN_S = 0.5
QUICK: dict[str, Any] = {"poll_interval": 0.05, "max_streams_per_token": 1000}


@pytest.fixture(autouse=True)
def small_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both services have the same clock, and a local file system hides nothing: no need to wait 90 s."""
    monkeypatch.setattr(change_journal, "MARGIN_S", MARGIN_S)


async def serve_two(serve: Serve) -> tuple[Service, Service]:
    """Start two services, and wait until the later one can continue the streams of the other."""
    first, second = await serve(**QUICK), await serve(**QUICK)
    await has_read_all(second)
    await has_seen_until(first, time.time() + 2 * MARGIN_S)
    return first, second


async def has_read_all(service: Service) -> None:
    async with asyncio.timeout(15):
        while (await service.get("/readyz", token=None)).status != 200:
            await pause()


async def has_seen_until(service: Service, moment: float) -> None:
    """Wait until a service has seen every change on storage before a time (seconds since the epoch)."""
    async with asyncio.timeout(15):
        while True:
            async with open_event_stream(service, ALL) as stream:
                event = await stream.next_named("present")
            if int((event.id or "").rpartition("-")[2]) >= moment * 1000:
                return
            await pause()


async def resumed(service: Service, kept: str) -> float:
    return await service.metric(f'jobsvc_event_streams_resumed_total{{kept="{kept}"}}')


async def read_changes(stream: EventStream, *job_ids: str) -> dict[str, str]:
    """Read until there was an event of each of these jobs; return the last status of all, or `removed`."""
    jobs: dict[str, str] = {}
    while not set(job_ids) <= jobs.keys():
        event = await stream.next()
        assert event is not None
        assert event.name in {"job", "removed"}
        jobs[event.json()["id"]] = event.json().get("status", event.name)
    return jobs


async def test_stream_of_all_jobs_goes_on_at_the_other_replica_without_a_list(
    serve: Serve, make_job: MakeJob
) -> None:
    folders = [make_job(f"job-{number}", status="rendering") for number in range(20)]
    first, second = await serve_two(serve)
    async with open_event_stream(first, ALL) as stream:
        await stream.next_named("present")
        make_job("job-1", status="rendering", progress=10)
        assert (await stream.next_named("job")).json()["progress"] == 10
        last = stream.last_event_id
    make_job("job-2", status="completed")
    make_job("job-3", status="rendering", owner="bob")
    shutil.rmtree(folders[4])
    make_job("job-20")
    async with open_event_stream(second, ALL, last_event_id=last) as stream:
        jobs = await read_changes(stream, "job-2", "job-3", "job-4", "job-20")
        assert jobs.pop("job-1", "rendering") == "rendering"
        assert jobs == {"job-2": "completed", "job-3": "removed", "job-4": "removed", "job-20": "queued"}
        last = stream.last_event_id
    make_job("job-5", status="failed")
    async with open_event_stream(first, ALL, last_event_id=last) as stream:
        assert (await read_changes(stream, "job-5"))["job-5"] == "failed"
    assert (await resumed(first, "jobs"), await resumed(second, "jobs")) == (1, 1)


async def test_jobs_that_left_the_requested_states_are_removed_at_the_other_replica(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job("job-1", status="rendering")
    make_job("job-2", status="rendering")
    first, second = await serve_two(serve)
    target = f"{ALL}?status=rendering"
    async with open_event_stream(first, target) as stream:
        last = (await stream.next_named("present")).id
    make_job("job-1", status="failed")
    await has_seen_until(second, time.time())
    async with open_event_stream(second, target, last_event_id=last) as stream:
        assert await read_changes(stream, "job-1") == {"job-1": "removed"}


async def test_stream_goes_on_at_a_replica_that_was_started_too_late_with_all_jobs(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job("job-1", status="rendering")
    make_job("job-2", status="rendering")
    first = await serve(**QUICK)
    async with open_event_stream(first, ALL) as stream:
        last = (await stream.next_named("present")).id
    shutil.rmtree(make_job("job-2"))
    second = await serve(**QUICK)
    async with open_event_stream(second, ALL, last_event_id=last) as stream:
        assert (await stream.next_named("job")).json()["id"] == "job-1"
        assert (await stream.next_named("present")).json() == {"jobs": 1}
    assert await resumed(second, "nothing") == 1


async def test_same_replica_goes_on_after_the_last_event_and_repeats_nothing(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job("job-1", status="rendering")
    service = await serve(**QUICK)
    async with open_event_stream(service, ALL) as stream:
        await stream.next_named("present")
        make_job("job-1", status="rendering", progress=10)
        last = (await stream.next_named("job")).id
    async with open_event_stream(service, ALL, last_event_id=last) as stream:
        make_job("job-2")
        assert await read_changes(stream, "job-2") == {"job-2": "queued"}
    assert await resumed(service, "changes") == 1


async def test_replica_gives_ids_of_its_own_once_it_has_seen_all_that_the_client_may_know(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_INTERVAL_S", 0.1)
    make_job("job-1", status="rendering")
    first, second = await serve_two(serve)
    async with open_event_stream(first, ALL) as stream:
        last = (await stream.next_named("present")).id
    make_job("job-2")
    await has_seen_until(second, time.time())
    async with open_event_stream(second, ALL, last_event_id=last) as stream:
        await read_changes(stream, "job-2")
        assert (stream.last_event_id or "").startswith("000000000000-0-")
        reading = asyncio.ensure_future(stream.next())
        async with asyncio.timeout(15):
            while (stream.last_event_id or "").startswith("0000"):
                await pause()
                if reading.done():
                    reading = asyncio.ensure_future(stream.next())
        last = stream.last_event_id
        reading.cancel()
    async with open_event_stream(second, ALL, last_event_id=last) as stream:
        make_job("job-3")
        assert await read_changes(stream, "job-3") == {"job-3": "queued"}
    assert await resumed(second, "changes") == 1


async def test_long_poll_at_the_other_replica_ends_with_the_next_change(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering", progress=1)
    first, second = await serve(**QUICK), await serve(**QUICK)
    etag = (await first.get(JOB)).headers["ETag"]
    assert (await second.get(f"{JOB}?wait=0.2", ("If-None-Match", etag))).status == 304
    polling = asyncio.ensure_future(second.get(f"{JOB}?wait=30", ("If-None-Match", etag)))
    make_job(status="rendering", progress=2)
    answer = await polling
    assert answer.json()["progress"] == 2
    current = await first.get(JOB, ("Cache-Control", "no-cache"))
    assert current.headers["ETag"] == answer.headers["ETag"]


async def test_list_goes_on_at_the_other_replica(serve: Serve, make_job: MakeJob) -> None:
    for number in range(9):
        make_job(f"job-{number}", createdAt=f"2026-01-0{number + 1}T00:00:00Z")
    services = [await serve(**QUICK), await serve(**QUICK)]
    listed, cursor = [], ""
    for number in range(5):
        await has_read_all(services[number % 2])
        page = (await services[number % 2].get(f"/api/jobs?limit=2{cursor}")).json()
        listed += [job["id"] for job in page["jobs"]]
        cursor = f"&cursor={page['nextCursor']}"
    assert listed == [f"job-{number}" for number in reversed(range(9))]
    assert cursor == "&cursor=None"


@pytest.mark.parametrize(
    "target", [JOB, "/api/jobs", f"{JOB}/logs", f"{JOB}/files", f"{JOB}/download", f"{JOB}/archive.tar"]
)
async def test_both_replicas_have_the_same_entity_tag(serve: Serve, make_job: MakeJob, target: str) -> None:
    first = await serve(**QUICK)
    await has_read_all(first)
    make_job(output=b"film", log=b"done\n")
    assert (await first.get(JOB)).status == 200
    second = await serve(**QUICK)
    await has_read_all(second)
    answers = [await service.get(target) for service in (first, second)]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].headers["ETag"] == answers[1].headers["ETag"]
    assert answers[0].body == answers[1].body


async def test_replica_that_does_not_know_the_digest_sends_the_job_again_and_no_download(
    serve: Serve, make_job: MakeJob
) -> None:
    """The digest is a part of the job, but not of the version of its output."""
    make_job(output=b"film")
    first, second = await serve(**QUICK), await serve(**QUICK)
    async with asyncio.timeout(15):
        while "outputSha256" not in (await first.get(JOB)).json():
            await first.download("job-1", ("Want-Repr-Digest", "sha-256=1"))
    jobs = [await service.get(JOB) for service in (first, second)]
    assert jobs[0].headers["ETag"] != jobs[1].headers["ETag"]
    async with open_event_stream(
        second, f"{JOB}/events", last_event_id=jobs[0].headers["ETag"][1:-1]
    ) as stream:
        assert [event.json() for event in await stream.read_all()] == [jobs[1].json()]
    etag = (await first.download("job-1")).headers["ETag"]
    assert (await second.download("job-1", ("If-None-Match", etag))).status == 304
    assert (await second.download("job-1", ("Range", "bytes=2-"), ("If-Range", etag))).status == 206
