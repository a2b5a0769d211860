"""`GET /api/jobs/{id}?wait=SECONDS` against the running service: an answer when there is news."""

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
from jobsvc.web.endpoints import long_poll as waiting_module
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess
from tests.eventually import until
from tests.raw_http import Answer, request
from tests.service_runner import Service

JOB = "/api/jobs/job-1"
WAITING = "jobsvc_requests_waiting"


async def measures(service: Service, value: float, deadline: float = 5) -> None:
    """Wait until so many requests wait."""
    async with asyncio.timeout(deadline):
        while await service.metric(WAITING) != value:
            pass


@asynccontextmanager
async def waiting(
    service: Service, *fields: tuple[str, str], seconds: str = "30", method: str = "GET"
) -> AsyncIterator[asyncio.Task[Answer]]:
    """Have a request that waits; the block begins when it does."""
    before = await service.metric(WAITING)
    asked = asyncio.create_task(service.ask(method, f"{JOB}?wait={seconds}", fields))
    try:
        await measures(service, before + 1)
        yield asked
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def tag(service: Service) -> tuple[str, str]:
    """Make the condition of who knows the present state."""
    return "If-None-Match", (await service.get(JOB)).headers["ETag"]


async def test_who_knows_the_state_is_answered_as_soon_as_it_is_another(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering", progress=10)
    service = await serve(poll_interval=0.05)
    async with waiting(service, await tag(service)) as asked:
        begun = time.monotonic()
        make_job(status="rendering", progress=20)
        answer = await asked
        assert time.monotonic() - begun < 10
    assert (answer.status, answer.json()["progress"]) == (200, 20)
    assert answer.headers["ETag"] == (await tag(service))[1]


async def test_who_knows_the_state_learns_that_it_stayed_when_the_time_is_up(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering")
    service = await serve()
    begun = time.monotonic()
    known = await tag(service)
    answer = await service.get(f"{JOB}?wait=0.5", known)
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["ETag"] == known[1]
    assert time.monotonic() - begun >= 0.5


async def test_the_longest_wait_ends_before_common_proxies_give_up(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert waiting_module.WAIT_ENDS_AFTER_S <= 55
    monkeypatch.setattr(waiting_module, "WAIT_ENDS_AFTER_S", 0.5)
    make_job(status="rendering")
    service = await serve()
    known = await tag(service)
    for seconds in ("60", "55.5", "1"):
        begun = time.monotonic()
        assert (await service.get(f"{JOB}?wait={seconds}", known)).status == 304
        assert time.monotonic() - begun >= 0.5


@pytest.mark.parametrize("known", ['"another"', 'W/"x", "y"', "no tag"])
async def test_who_knows_another_state_is_answered_at_once(
    serve: Serve, make_job: MakeJob, known: str
) -> None:
    make_job(status="rendering")
    service = await serve()
    answer = await asyncio.wait_for(service.get(f"{JOB}?wait=30", ("If-None-Match", known)), 5)
    assert answer.status == 200


async def test_who_knows_no_state_waits_for_the_next_and_gets_the_present_one_when_the_time_is_up(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering", progress=10)
    service = await serve(poll_interval=0.05)
    begun = time.monotonic()
    answer = await service.get(f"{JOB}?wait=0.5")
    assert (answer.status, answer.json()["progress"]) == (200, 10)
    assert time.monotonic() - begun >= 0.5
    async with waiting(service) as asked:
        make_job(status="rendering", progress=20)
        assert (await asyncio.wait_for(asked, 5)).json()["progress"] == 20


async def test_a_change_that_nobody_sees_in_the_answer_is_no_news(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", updatedAt="2026-01-02T03:04:05Z", createdAt="2026-01-02T03:04:05Z")
    service = await serve(poll_interval=0.05)
    async with waiting(service, await tag(service), seconds="1") as asked:
        make_job(
            status="rendering",
            updatedAt="2026-01-02T03:04:05Z",
            createdAt="2026-01-02T03:04:05Z",
            logPath="other.log",
        )
        assert (await asked).status == 304


async def test_a_head_waits_as_a_get_does(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering")
    service = await serve(poll_interval=0.05)
    async with waiting(service, await tag(service), method="HEAD") as asked:
        make_job(status="completed")
        assert (await asyncio.wait_for(asked, 5)).status == 200


async def test_a_final_job_that_goes_on_is_news_where_no_event_tells_of_it(
    serve: Serve, make_job: MakeJob
) -> None:
    """As when a failed job is retried: jobs that are done are not polled."""
    make_job(status="failed", log=b"why\n")
    service = await serve(max_age=0.2)
    async with waiting(service, await tag(service)) as asked:
        make_job(status="queued")
        assert (await asyncio.wait_for(asked, 5)).json()["status"] == "queued"


async def test_a_waiting_request_is_counted_once(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", progress=1)
    service = await serve(limit_status="10/hour", poll_interval=0.05)
    known = await tag(service)
    async with waiting(service, known) as asked:
        make_job(status="rendering", progress=2)
        answer = await asyncio.wait_for(asked, 5)
    assert answer.headers["RateLimit"].startswith('"status";r=8;')


async def test_the_time_that_it_waits_is_not_counted_as_that_of_an_answer(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering")
    service = await serve()
    for _ in range(2):
        await service.get(f"{JOB}?wait=0.1")
    await service.get(JOB)
    for route, times in (("/api/jobs/{id}", 1), ("/api/jobs/{id}?wait", 2)):
        labels = f'code="200",method="GET",route="{route}"'
        assert await service.metric(f"jobsvc_requests_total{{{labels}}}") == times


async def test_many_may_wait_and_none_holds_a_thread(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering", progress=1)
    service = await serve(poll_interval=0.1)
    await service.get(JOB)
    before = threading.active_count()
    async with AsyncExitStack() as stack:
        asked = [await stack.enter_async_context(waiting(service)) for _ in range(50)]
        assert threading.active_count() <= before + 1
        make_job(status="rendering", progress=2)
        answers = await asyncio.wait_for(asyncio.gather(*asked), 10)
        assert {answer.json()["progress"] for answer in answers} == {2}
    await measures(service, 0)


async def test_a_job_that_goes_or_becomes_another_s_is_not_found(serve: Serve, make_job: MakeJob) -> None:
    make_job("job-2")
    folder = make_job(status="rendering")
    service = await serve(poll_interval=0.05)
    async with waiting(service) as asked:
        make_job(status="rendering", owner="bob")
        assert (await asyncio.wait_for(asked, 5)).code == "job-not-found"
    make_job(status="rendering")
    async with asyncio.timeout(5):
        while (await service.get(JOB)).status != 200:
            pass
    async with waiting(service) as asked:
        shutil.rmtree(folder)
        assert (await asyncio.wait_for(asked, 5)).code == "job-not-found"


async def test_a_job_of_another_is_not_found_at_once(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(status="rendering")
    bob = make_token("bob")
    service = await serve()
    for job in ("job-1", "job-9"):
        answer = await asyncio.wait_for(service.get(f"/api/jobs/{job}?wait=30", token=bob), 5)
        assert answer.code == "job-not-found"


async def test_a_token_that_is_revoked_waits_no_longer(
    serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(status="rendering")
    service = await serve()
    async with waiting(service) as asked:
        (token,) = load(state_dir / "tokens.json")
        revoke(state_dir / "tokens.json", token.id)
        answer = await asyncio.wait_for(asked, 2)
        assert (answer.status, answer.code) == (401, "unauthorized")


async def test_the_present_state_goes_out_at_once_when_the_service_ends(
    start_process: StartProcess, make_job: MakeJob
) -> None:
    make_job(status="rendering")
    service = start_process("--shutdown-grace", 20)
    async with waiting(service) as asked:
        service.send_signal()
        assert (await asyncio.wait_for(asked, 2)).status == 200
    await until(lambda: service.process.poll() == 0, 3)


async def test_a_client_that_left_waits_no_longer(serve: Serve, make_job: MakeJob) -> None:
    make_job(status="rendering")
    service = await serve()
    async with waiting(service) as asked:
        asked.cancel()
        await measures(service, 0)


async def test_a_client_that_closes_its_side_is_answered_now(serve: Serve, make_job: MakeJob) -> None:
    """It may be gone altogether: the two look the same."""
    make_job(status="rendering")
    service = await serve()
    async with service.connect() as link:
        link.send(request("GET", f"{JOB}?wait=30", token=service.token))
        await measures(service, 1)
        link.writer.write_eof()
        assert (await asyncio.wait_for(link.answer(), 5)).status == 200
        assert await link.ended()


@pytest.mark.parametrize("text", ["61", "-1", "x", "", "1e3", "5&wait=5", "05", "1.", "nan", "0x1", "60.1"])
async def test_a_time_that_makes_no_sense_is_named(serve: Serve, make_job: MakeJob, text: str) -> None:
    make_job(status="rendering")
    answer = await (await serve()).get(f"{JOB}?wait={text}")
    assert (answer.status, answer.code) == (400, "bad-request")
    assert answer.json()["detail"].startswith("wait")


@pytest.mark.parametrize("query", ["wait=0", ""])
async def test_no_time_is_an_ordinary_question(serve: Serve, make_job: MakeJob, query: str) -> None:
    make_job(status="rendering")
    answer = await asyncio.wait_for((await serve()).get(f"{JOB}?{query}"), 5)
    assert answer.status == 200
