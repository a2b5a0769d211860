"""Two services on one jobs root: what a client has of one of them, it can use at the other."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import Any

import pytest

from jobsvc.index.catalogue import change_journal
from tests.clients.sse_client import EventStream, open_event_stream
from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service

ALL = "/api/events"
MARGIN_S = 0.5
QUICK: dict[str, Any] = {"poll_interval": 0.05, "max_streams_per_token": 1000}


@pytest.fixture(autouse=True)
def small_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both services have the same clock, and a local file system hides nothing: no need to wait 90 s."""
    monkeypatch.setattr(change_journal, "MARGIN_S", MARGIN_S)


async def both(serve: Serve) -> tuple[Service, Service]:
    """Start two services, the second one later, and wait until it can replace the first one."""
    first, second = await serve(**QUICK), await serve(**QUICK)
    async with asyncio.timeout(5):
        while (await second.get("/readyz", token=None)).status != 200:
            await pause()
    await has_seen_until(first, time.time() + 2 * MARGIN_S)
    return first, second


async def has_seen_until(service: Service, moment: float) -> None:
    """Wait until a service has seen every change on storage before a time (seconds since the epoch)."""
    async with asyncio.timeout(10):
        while True:
            async with open_event_stream(service, ALL) as stream:
                event = await stream.next_named("present")
            if int((event.id or "").rpartition("-")[2]) >= moment * 1000:
                return
            await pause()


async def jobs_until_present(stream: EventStream) -> dict[str, str]:
    """Return the states by job id, up to the `present` event."""
    jobs: dict[str, str] = {}
    while (event := await stream.next()) is not None and event.name != "present":
        jobs[event.json()["id"]] = event.json()["status"]
    return jobs


async def test_stream_of_all_jobs_goes_on_at_another_replica_without_a_list(
    serve: Serve, make_job: MakeJob
) -> None:
    for number in range(20):
        make_job(f"job-{number}", status="rendering")
    first, second = await both(serve)
    async with open_event_stream(first, ALL) as stream:
        assert len(await jobs_until_present(stream)) == 20
        make_job("job-1", status="rendering", progress=10)
        assert (await stream.next_named("job")).json()["progress"] == 10
        last = stream.last_event_id
    make_job("job-2", status="completed")
    make_job("job-3", status="rendering", owner="bob")
    shutil.rmtree(make_job("job-4"))
    make_job("job-20")
    async with open_event_stream(second, ALL, last_event_id=last) as stream:
        known: dict[str, str] = {}
        while not {"job-2", "job-3", "job-4", "job-20"} <= known.keys():
            event = await stream.next()
            assert event is not None
            assert event.name != "present"
            known[event.json()["id"]] = event.json().get("status", event.name)
        assert known.pop("job-1", "rendering") == "rendering"
        assert known == {"job-2": "completed", "job-3": "removed", "job-4": "removed", "job-20": "queued"}
    assert await second.metric('jobsvc_event_streams_resumed_total{kept="jobs"}') == 1
