"""The service while Redis cannot be used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    set_waits(monkeypatch, 2, 2)  # a process can be stopped for a second
    with redis_server(tmp_path) as server:
        yield server


async def wait_for_readiness(service: Service, line: str) -> None:
    """Wait until the body of /readyz has a line; the service stays ready."""
    ends = time.monotonic() + 15
    while line not in (await service.get("/readyz", token=None)).body.decode().splitlines():
        assert time.monotonic() < ends
        await pause()


async def test_responses_go_on_while_redis_is_killed_and_hangs(
    redis: RedisServer, serve: Serve, make_job: MakeJob
) -> None:
    make_job()
    service = await serve(shared_state=redis.url, limit_status="1000/minute")
    await wait_for_readiness(service, "shared state: up")
    assert await service.metric("jobsvc_shared_state_up") == 1
    for stop, start in ((redis.kill, redis.start), (redis.pause, redis.resume)):
        stop()
        for _ in range(20):
            assert (await service.get("/api/jobs/job-1")).status == 200
        await wait_for_readiness(service, "shared state: down")
        assert await service.metric("jobsvc_shared_state_up") == 0
        assert await service.metric("jobsvc_shared_state_errors_total") > 0
        start()
        await wait_for_readiness(service, "shared state: up")
    assert await service.answer_count(500) == 0


async def test_service_starts_without_redis_and_uses_it_later(
    redis: RedisServer, serve: Serve, make_job: MakeJob
) -> None:
    make_job()
    redis.kill()
    service = await serve(shared_state=redis.url)
    await wait_for_readiness(service, "ready")
    await wait_for_readiness(service, "shared state: down")
    assert (await service.get("/api/jobs/job-1")).status == 200
    redis.start()
    await wait_for_readiness(service, "shared state: up")
