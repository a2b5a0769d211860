"""`GET /api/jobs/{id}?wait=SECONDS` against the running service."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from jobsvc.storage.state.token_file import load, revoke
from jobsvc.storage.threads import thread_pool
from jobsvc.web.endpoints import long_poll as waiting_module
from tests.clients.raw_http import Answer, request
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess
from tests.eventually import pause, until
from tests.programs.service_runner import Service

JOB = "/api/jobs/job-1"
WAITING = "jobsvc_requests_waiting"


async def wait_until_waiting(service: Service, value: float, deadline: float = 15) -> None:
    """Wait until this many requests wait."""
    async with asyncio.timeout(deadline):
        while await service.metric(WAITING) != value:
            await pause()


@asynccontextmanager
async def waiting(
    service: Service, *fields: tuple[str, str], seconds: str = "30", method: str = "GET"
) -> AsyncIterator[asyncio.Task[Answer]]:
    """Send a request that waits; the block starts once it waits."""
    before = await service.metric(WAITING)
    waiting_request = asyncio.create_task(service.ask(method, f"{JOB}?wait={seconds}", fields))
    try:
        await wait_until_waiting(service, before + 1)
        yield waiting_request
    finally:
        waiting_request.cancel()
        await asyncio.gather(waiting_request, return_exceptions=True)


async def if_none_match(service: Service) -> tuple[str, str]:
    """Return the condition of a client that knows the current state."""
    return "If-None-Match", (await service.get(JOB)).headers["ETag"]


async def test_wait_is_answered_as_soon_as_the_state_changes(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", progress=10)
    service = await serve(poll_interval=0.05)
    async with waiting(service, await if_none_match(service)) as waiting_request:
        started_at = time.monotonic()
        make_job(status="rendering", progress=20)
        answer = await waiting_request
        assert time.monotonic() - started_at < 10
    assert (answer.status, answer.json()["progress"]) == (200, 20)
    assert answer.headers["ETag"] == (await if_none_match(service))[1]


async def test_wait_without_a_change_is_304_when_it_ends(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering")
    service = await serve()
    started_at = time.monotonic()
    known = await if_none_match(service)
    answer = await service.get(f"{JOB}?wait=0.5", known)
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["ETag"] == known[1]
    assert time.monotonic() - started_at >= 0.5


async def test_longest_wait_is_shorter_than_common_proxy_timeouts(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert waiting_module.WAIT_ENDS_AFTER_S <= 55
    monkeypatch.setattr(waiting_module, "WAIT_ENDS_AFTER_S", 0.5)
    make_job(status="rendering")
    service = await serve()
    known = await if_none_match(service)
    for seconds in ("60", "55.5", "1"):
        started_at = time.monotonic()
        assert (await service.get(f"{JOB}?wait={seconds}", known)).status == 304
        assert time.monotonic() - started_at >= 0.5


@pytest.mark.parametrize("known", ['"another"', 'W/"x", "y"', "no tag"])
async def test_outdated_entity_tag_is_answered_immediately(
    serve: Serve, make_job: MakeJob, known: str
) -> None:
    make_job(status="rendering")
    service = await serve()
    answer = await asyncio.wait_for(service.get(f"{JOB}?wait=30", ("If-None-Match", known)), 5)
    assert answer.status == 200


async def test_wait_without_a_condition_gets_the_next_change_or_the_current_state_when_it_ends(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering", progress=10)
    service = await serve(poll_interval=0.05)
    started_at = time.monotonic()
    answer = await service.get(f"{JOB}?wait=0.5")
    assert (answer.status, answer.json()["progress"]) == (200, 10)
    assert time.monotonic() - started_at >= 0.5
    async with waiting(service) as waiting_request:
        make_job(status="rendering", progress=20)
        assert (await asyncio.wait_for(waiting_request, 5)).json()["progress"] == 20


async def test_change_that_is_not_visible_in_the_response_does_not_end_the_wait(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering", updatedAt="2026-01-02T03:04:05Z", createdAt="2026-01-02T03:04:05Z")
    service = await serve(poll_interval=0.05)
    async with waiting(service, await if_none_match(service), seconds="4") as waiting_request:
        make_job(
            status="rendering",
            updatedAt="2026-01-02T03:04:05Z",
            createdAt="2026-01-02T03:04:05Z",
            logPath="other.log",
        )
        assert (await waiting_request).status == 304


async def test_head_waits_like_get(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering")
    service = await serve(poll_interval=0.05)
    async with waiting(service, await if_none_match(service), method="HEAD") as waiting_request:
        make_job(status="completed")
        assert (await asyncio.wait_for(waiting_request, 5)).status == 200


async def test_retried_job_ends_the_wait_without_events(serve: Serve, make_job: MakeJob) -> None:
    """Finished jobs are not polled."""
    make_job(status="failed", log=b"why\n")
    service = await serve(max_age=0.2)
    async with waiting(service, await if_none_match(service)) as waiting_request:
        make_job(status="queued")
        assert (await asyncio.wait_for(waiting_request, 5)).json()["status"] == "queued"


async def test_waiting_request_is_counted_once(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", progress=1)
    service = await serve(limit_status="10/hour", poll_interval=0.05)
    known = await if_none_match(service)
    async with waiting(service, known) as waiting_request:
        make_job(status="rendering", progress=2)
        answer = await asyncio.wait_for(waiting_request, 5)
    assert answer.headers["RateLimit"].startswith('"status";r=8;')


async def test_time_of_the_wait_is_not_part_of_the_response_time(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering")
    service = await serve()
    for _ in range(2):
        await service.get(f"{JOB}?wait=0.1")
    await service.get(JOB)
    for route, times in (("/api/jobs/{id}", 1), ("/api/jobs/{id}?wait", 2)):
        labels = f'code="200",method="GET",route="{route}"'
        assert await service.metric(f"jobsvc_requests_total{{{labels}}}") == times


async def test_many_requests_may_wait_without_holding_a_thread(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A pool has one thread from its first call on, and no more because a call waits for the processor.
    monkeypatch.setattr(thread_pool, "_READY_THREADS", 1)
    monkeypatch.setattr(thread_pool, "_GROW_AFTER_S", 3600.0)
    make_job(status="rendering", progress=1)
    service = await serve(poll_interval=0.1)
    async with asyncio.timeout(15):
        while (await service.get("/readyz")).status != 200:
            await pause()
    await service.get(JOB)
    before = threading.active_count()
    async with AsyncExitStack() as stack:
        waiting_request = [await stack.enter_async_context(waiting(service)) for _ in range(50)]
        assert threading.active_count() <= before + 1
        make_job(status="rendering", progress=2)
        answers = await asyncio.wait_for(asyncio.gather(*waiting_request), 10)
        assert {answer.json()["progress"] for answer in answers} == {2}
    await wait_until_waiting(service, 0)


async def test_wait_is_404_when_the_job_is_removed_or_changes_its_owner(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job("job-2")
    folder = make_job(status="rendering")
    service = await serve(poll_interval=0.05)
    async with waiting(service) as waiting_request:
        make_job(status="rendering", owner="bob")
        assert (await asyncio.wait_for(waiting_request, 5)).code == "job-not-found"
    make_job(status="rendering")
    async with asyncio.timeout(15):
        while (await service.get(JOB)).status != 200:
            await pause()
    async with waiting(service) as waiting_request:
        shutil.rmtree(folder)
        assert (await asyncio.wait_for(waiting_request, 5)).code == "job-not-found"


async def test_job_of_another_owner_is_404_immediately(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(status="rendering")
    bob = make_token("bob")
    service = await serve()
    for job in ("job-1", "job-9"):
        answer = await asyncio.wait_for(service.get(f"/api/jobs/{job}?wait=30", token=bob), 5)
        assert answer.code == "job-not-found"


@pytest.mark.alone
async def test_revoked_token_ends_the_wait(serve: Serve, make_job: MakeJob, state_dir: Path) -> None:
    make_job(status="rendering")
    service = await serve()
    async with waiting(service) as waiting_request:
        (token,) = load(state_dir / "tokens.json")
        revoke(state_dir / "tokens.json", token.id)
        answer = await asyncio.wait_for(waiting_request, 2)
        assert (answer.status, answer.code) == (401, "unauthorized")


@pytest.mark.alone
async def test_wait_is_answered_with_the_current_state_at_shutdown(
    start_process: StartProcess, make_job: MakeJob
) -> None:
    make_job(status="rendering")
    service = start_process("--shutdown-grace", 20)
    async with waiting(service) as waiting_request:
        service.send_signal()
        assert (await asyncio.wait_for(waiting_request, 2)).status == 200
    await until(lambda: service.process.poll() == 0, 3)


async def test_wait_of_a_disconnected_client_ends(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering")
    service = await serve()
    async with waiting(service) as waiting_request:
        waiting_request.cancel()
        await wait_until_waiting(service, 0)


async def test_client_that_half_closes_is_answered_immediately(serve: Serve, make_job: MakeJob) -> None:
    """The client may be gone altogether: the two cannot be distinguished."""
    make_job(status="rendering")
    service = await serve()
    async with service.connect() as link:
        link.send(request("GET", f"{JOB}?wait=30", token=service.token))
        await wait_until_waiting(service, 1)
        link.writer.write_eof()
        assert (await asyncio.wait_for(link.answer(), 5)).status == 200
        assert await link.ended()


@pytest.mark.parametrize("text", ["61", "-1", "x", "", "1e3", "5&wait=5", "05", "1.", "nan", "0x1", "60.1"])
async def test_invalid_wait_is_named(serve: Serve, make_job: MakeJob, text: str) -> None:
    make_job(status="rendering")
    answer = await (await serve()).get(f"{JOB}?wait={text}")
    assert (answer.status, answer.code) == (400, "bad-request")
    assert answer.json()["detail"].startswith("wait")


@pytest.mark.parametrize("query", ["wait=0", ""])
async def test_wait_of_zero_is_an_ordinary_request(serve: Serve, make_job: MakeJob, query: str) -> None:
    make_job(status="rendering")
    answer = await asyncio.wait_for((await serve()).get(f"{JOB}?{query}"), 5)
    assert answer.status == 200
