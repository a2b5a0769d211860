"""One token, or one owner with many tokens, cannot take all streams, long polls and descriptors."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.clients.raw_http import request
from tests.clients.sse_client import open_event_stream
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess
from tests.eventually import pause
from tests.programs.service_runner import Service

LASTING = (
    "/api/jobs/job-1/events",
    "/api/events",
    "/api/jobs/job-1/logs?follow=1",
    "/api/jobs/job-1?wait=30",
)


async def opened(service: Service, stack: AsyncExitStack, target: str, count: int, token: str) -> None:
    """Send this many requests and read nothing."""
    for _ in range(count):
        link = await stack.enter_async_context(service.connect())
        link.send(request("GET", target, token=token))


async def wait_for_open(service: Service, count: int) -> None:
    """Wait until this many streams and long polls are open."""
    names = [f'jobsvc_event_streams{{of="{of}"}}' for of in ("job", "jobs", "log")]
    while sum([await service.metric(name) for name in [*names, "jobsvc_requests_waiting"]]) != count:
        await pause()


@pytest.mark.parametrize("target", LASTING)
@pytest.mark.parametrize("held", LASTING)
async def test_stream_above_the_limit_is_refused_with_retry_after(
    target: str, held: str, serve: Serve, make_job: MakeJob
) -> None:
    make_job(status="rendering", log=b"one\n")
    service = await serve(max_streams_per_token=2)
    async with AsyncExitStack() as stack:
        await opened(service, stack, held, 2, service.token or "")
        await wait_for_open(service, 2)
        answer = await service.get(target)
        assert (answer.status, answer.code) == (429, "too-many-streams")
        assert answer.headers["Retry-After"] == "5"
        assert (await service.get("/api/jobs/job-1")).status == 200
    await wait_for_open(service, 0)
    assert await service.metric('jobsvc_streams_refused_total{limit="token"}') == 1


async def test_owner_with_many_tokens_leaves_streams_to_others(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(status="rendering")
    make_job("job-2", status="rendering", owner="bob")
    tokens = [make_token() for _ in range(17)]
    other = make_token("bob")
    service = await serve(max_streams=64)
    async with AsyncExitStack() as stack:
        for token in tokens:
            await opened(service, stack, "/api/events", 4, token)
        await wait_for_open(service, 32)
        async with open_event_stream(service, "/api/jobs/job-2/events", token=other) as stream:
            assert stream.status == 200
        answer = await service.get("/api/jobs/job-1/events", token=tokens[0])
        assert answer.code == "too-many-streams"


async def test_one_token_with_many_connections_leaves_descriptors_to_others(
    start_process: StartProcess, make_job: MakeJob, make_token: MakeToken, jobs_root: object
) -> None:
    make_job(status="rendering")
    make_job("job-2", owner="bob", output=b"film")
    other = make_token("bob")
    service = start_process("--limit-status", "1000000/minute")
    async with AsyncExitStack() as stack:
        await opened(service, stack, "/api/jobs/job-1/events", 300, service.token or "")
        await wait_for_open(service, 64)
        for target in ("/api/jobs/job-2", "/api/jobs/job-2/download", "/healthz"):
            assert (await service.get(target, token=other)).status == 200
