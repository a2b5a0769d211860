"""Services that share budgets through Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from jobsvc.shared_state import connection as connection_module
from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.external_programs import needs
from tests.programs.redis_server import RedisServer, redis_server
from tests.programs.service_runner import Service
from tests.shared_state.connecting import set_waits

pytestmark = needs("redis-server")


@pytest.fixture
def redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    monkeypatch.setattr(connection_module, "PROBE_INTERVAL_S", 0.05)
    set_waits(monkeypatch)
    with redis_server(tmp_path) as server:
        yield server


async def serve_two(serve: Serve, redis: RedisServer, **settings: Any) -> list[Service]:
    """Start two services; the first one's token is valid at both."""
    services = [
        await serve(shared_state=redis.url, instance=name, **settings) for name in ("first", "second")
    ]
    for service in services:
        while b"shared state: up" not in (await service.get("/readyz", token=None)).body:
            await pause()
    return services


async def until_counted(redis: RedisServer) -> None:
    """Wait until the first service knows the second one, because it has counted the instances again.

    It sets its entry and gets the count at once, so it has the first count when the entry changes once more.
    """
    async with Redis.from_url(redis.url) as client:
        for _ in range(2):
            before = await client.zscore("jobsvc:{instances}", "first")
            while await client.zscore("jobsvc:{instances}", "first") == before:
                await pause()


async def send(services: list[Service], number: int, token: str | None) -> Counter[int]:
    """Send so many status polls to each service; return how often each status was the response."""

    statuses: Counter[int] = Counter()

    async def poll(service: Service) -> None:
        async with service.connect() as link:
            for _ in range(number):
                statuses[(await link.ask("GET", "/api/jobs/job-1", token=token)).status] += 1

    await asyncio.gather(*map(poll, services))
    return statuses


async def test_two_services_admit_one_budget(redis: RedisServer, serve: Serve, make_job: MakeJob) -> None:
    make_job()
    services = await serve_two(serve, redis, limit_status="100/hour")
    token = services[0].token
    statuses = await send(services, 100, token)
    assert 95 <= statuses[200] <= 100
    assert statuses[200] + statuses[429] == 200
    for service in services:
        refused = await service.get("/api/jobs/job-1", token=token)
        assert refused.status == 429
        assert 3500 < int(refused.headers["Retry-After"]) <= 3601
        assert 'status";r=0;t=' in refused.headers["RateLimit"]
        budget = (await service.get("/api/me", token=token)).json()["budgets"]["status"]
        assert (budget["limit"], budget["remaining"]) == (100, 0)


async def test_remaining_requests_include_those_at_the_other_service(
    redis: RedisServer, serve: Serve, make_job: MakeJob
) -> None:
    make_job()
    services = await serve_two(serve, redis, limit_status="1000/hour")
    token = services[0].token
    await send(services[:1], 300, token)
    answer = await services[1].get("/api/jobs/job-1", token=token)
    remaining = int(answer.headers["RateLimit"].partition(";r=")[2].partition(";")[0])
    assert 670 <= remaining <= 699  # the first service has leased some ahead


async def test_unchanged_responses_cost_a_tenth(redis: RedisServer, serve: Serve, make_job: MakeJob) -> None:
    make_job()
    (service, _) = await serve_two(serve, redis, limit_status="100/hour")
    etag = (await service.get("/api/jobs/job-1")).headers["ETag"]
    async with service.connect() as link:
        for _ in range(300):
            answer = await link.ask("GET", "/api/jobs/job-1", (("If-None-Match", etag),), token=service.token)
            assert answer.status == 304
    answer = await service.get("/api/jobs/job-1")
    assert 65 <= int(answer.headers["RateLimit"].partition(";r=")[2].partition(";")[0]) <= 69


async def test_invalid_tokens_are_counted_at_both_services(redis: RedisServer, serve: Serve) -> None:
    services = await serve_two(serve, redis, limit_auth_failures="20/hour")
    statuses = await send(services, 20, "wrong")
    assert statuses == {401: 20, 429: 20}


async def test_services_admit_one_budget_together_while_redis_is_away(
    redis: RedisServer, serve: Serve, make_job: MakeJob
) -> None:
    make_job()
    services = await serve_two(serve, redis, limit_status="100/hour")
    await until_counted(redis)
    token = services[0].token
    assert (await send(services[:1], 30, token))[200] == 30
    redis.kill()
    assert await send(services[:1], 60, token) == {200: 20, 429: 40}
    assert await send(services[1:], 60, token) == {200: 50, 429: 10}
    refused = await services[1].get("/api/jobs/job-1", token=token)
    assert refused.headers["RateLimit-Policy"].startswith('"status";q=100;w=3600')
    assert refused.headers["RateLimit"].startswith('"status";r=0;')
    assert 1 <= int(refused.headers["Retry-After"]) <= 3601
    redis.start()
    for service in services:
        while b"shared state: up" not in (await service.get("/readyz", token=None)).body:
            await pause()
    statuses = await send(services, 10, token)
    assert statuses[200] <= 5  # each adds what it has admitted when it asks for the first time


async def test_further_ranges_are_counted_at_both_services(
    redis: RedisServer, serve: Serve, make_job: MakeJob
) -> None:
    make_job(output=b"x" * 1000)
    services = await serve_two(serve, redis, limit_download="3/hour")
    token = services[0].token
    statuses: Counter[int] = Counter()
    for service in services:
        async with service.connect() as link:
            for offset in range(50):
                fields = (("Range", f"bytes={offset}-{offset}"),)
                answer = await link.ask("GET", "/api/jobs/job-1/download", fields, token=token)
                statuses[answer.status] += 1
    # 20 further ranges for each download of the budget; further ones are downloads.
    assert 58 <= statuses[206] <= 63
    assert statuses[206] + statuses[429] == 100
