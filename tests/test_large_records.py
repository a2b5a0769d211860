"""Large records: pages and events are bounded in bytes, and nothing is lost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from jobsvc.storage.processes import record_process
from jobsvc.web.endpoints.job_list import MAX_PAGE_BYTES
from tests.clients.raw_http import request
from tests.clients.sse_client import open_event_stream
from tests.conftest import MakeJob, Serve, StartProcess
from tests.eventually import pause
from tests.programs.service_runner import Service

BEYOND_A_PAGE: Final = {"text": "x" * (1_048_576 - 100)}
"""With it a record is just below the limit of 1 MiB, and its JSON in a list is above it."""

METADATA: Final[dict[str, dict[str, Any]]] = {
    "one-text": {"text": "x" * 900_000},
    "control-characters": {"text": "\1" * 150_000},
    "small-keys": {f"{number:x}": 0 for number in range(100_000)},
    "empty-lists": {"lists": [[]] * 300_000},
    "numbers": {"numbers": [0.1] * 200_000},
    "line-ends": {"text": "\r\n\u2028" * 10_000},
    "empty": {},
}


async def pages(service: Service, query: str) -> list[list[dict[str, Any]]]:
    """Read the list to its end; each page is bounded in bytes."""
    found, cursor = [], ""
    while True:
        answer = await service.get(f"/api/jobs?{query}{cursor}")
        page = answer.json()
        found.append(page["jobs"])
        assert len(answer.body) < MAX_PAGE_BYTES + 100 or len(page["jobs"]) == 1
        if page["nextCursor"] is None:
            return found
        cursor = f"&cursor={page['nextCursor']}"


async def ready(service: Service) -> Service:
    while (await service.get("/api/jobs")).status != 200:
        await pause()
    return service


async def test_page_is_bounded_in_bytes_and_the_cursor_continues(serve: Serve, make_job: MakeJob) -> None:
    for number in range(8):
        make_job(f"job-{number}", metadata={"text": "x" * 300_000})
    found = await pages(await ready(await serve()), "limit=200")
    assert [len(page) for page in found] == [3, 3, 2]
    assert len({job["id"] for page in found for job in page}) == 8


async def test_job_larger_than_a_page_is_a_page_of_its_own(serve: Serve, make_job: MakeJob) -> None:
    for number in range(3):
        make_job(f"job-{number}", metadata=BEYOND_A_PAGE if number else {})
    found = await pages(await ready(await serve()), "limit=2")
    assert sorted(len(page) for page in found) == [1, 1, 1]
    assert sum(job["metadata"] == BEYOND_A_PAGE for page in found for job in page) == 2


@pytest.mark.parametrize("kind", METADATA)
async def test_large_metadata_is_the_same_in_each_response(
    kind: str, serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering", phase="beauty", attempt=2, metadata=METADATA[kind])
    service = await ready(await serve(poll_interval=0.05))
    status = (await service.get("/api/jobs/job-1")).json()
    assert status["metadata"] == METADATA[kind]
    assert (status["phase"], status["attempt"]) == ("beauty", 2)
    assert (await service.get("/api/jobs")).json()["jobs"] == [status]
    for target in ("/api/jobs/job-1/events", "/api/events"):
        async with open_event_stream(service, target) as stream:
            assert (await stream.next_named("job")).json() == status


async def test_all_jobs_are_sent_whatever_their_size(serve: Serve, make_job: MakeJob) -> None:
    sizes = [10, 40_000, 10, 10, 900_000, 30_000, 30_000, 10, 32_700, 70_000]
    for number, size in enumerate(sizes):
        make_job(f"job-{number}", status="rendering", metadata={"text": "x" * size})
    service = await serve(poll_interval=0.05)
    async with open_event_stream(service, "/api/events") as stream:
        sent = [(await stream.next_named("job")).json() for _ in sizes]
        assert (await stream.next_named("present")).json() == {"jobs": len(sizes)}
        assert sorted(len(job["metadata"]["text"]) for job in sent) == sorted(sizes)
        for number, size in enumerate(sizes):
            make_job(f"job-{number}", status="completed", metadata={"text": "x" * size})
        changed = {job["id"] for job in [(await stream.next_named("job")).json() for _ in sizes]}
        assert len(changed) == len(sizes)


async def test_all_large_records_are_indexed_although_one_is_decoded_at_a_time(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_process, "MAX_WAITING", 0)
    service = await ready(await serve())
    for number in range(40):
        make_job(f"job-{number}", metadata={"lists": [[]] * 40_000})
    answers = await asyncio.gather(*(service.get(f"/api/jobs/job-{number}") for number in range(40)))
    refused = [answer for answer in answers if answer.status != 200]
    assert len(answers) > len(refused) > 0
    assert {(answer.status, answer.code) for answer in refused} == {(503, "storage-unavailable")}
    for number in range(40):
        while (await service.get(f"/api/jobs/job-{number}")).status != 200:
            await pause()
    assert sum(map(len, await pages(service, "limit=200"))) == 40


async def test_streams_that_nobody_reads_take_little_memory(
    start_process: StartProcess, make_job: MakeJob
) -> None:
    for number in range(100):
        make_job(f"job-{number}", status="failed", log=b"a line of a log\n" * 5_000, error="e")
    make_job("large", status="rendering", metadata=METADATA["one-text"])
    service = start_process("--limit-events", "1000000/minute")
    await ready(service)
    before = service.memory("VmRSS")
    async with AsyncExitStack() as stack:
        for _ in range(60):
            link = await stack.enter_async_context(service.connect(receive_buffer=2048))
            link.send(request("GET", "/api/events", token=service.token))
        while await service.metric('jobsvc_event_streams{of="jobs"}') != 60:
            await pause()
        for _ in range(50):
            assert (await service.get("/api/jobs/job-1")).status == 200
        assert service.memory("VmHWM") - before < 60 * (256 << 10)
