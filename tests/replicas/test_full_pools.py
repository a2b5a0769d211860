"""Probes and metrics while every place is taken and Redis hangs."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.clients.raw_http import request
from tests.conftest import MakeJob, StartProcess
from tests.eventually import pause
from tests.programs.external_programs import needs
from tests.programs.redis_server import redis_server
from tests.programs.service_runner import Service

FILM = bytes(8 << 20)
"""More than the buffers of a connection."""
DOWNLOADS = 16
STREAMS = 6
CONNECTIONS = DOWNLOADS + STREAMS
LIMIT_S = 1.0


async def take_all_places(service: Service, stack: AsyncExitStack) -> None:
    """Open as many downloads and streams as there may be, on as many connections as there may be."""
    targets = ["/api/jobs/job-1/download"] * DOWNLOADS + ["/api/jobs/job-2/events"] * STREAMS
    for target in targets:
        connection = await stack.enter_async_context(service.connect(receive_buffer=4096))
        connection.send(request("GET", target, token=service.token))
        assert (await connection.head())[1] == 200
    assert (await service.get("/api/jobs/job-1")).code == "too-many-connections"


async def answers_in_time(service: Service, target: str) -> None:
    started_at = time.monotonic()
    answer = await service.get(target, token=None)
    assert answer.status == 200
    assert time.monotonic() - started_at < LIMIT_S


@pytest.mark.alone
@needs("redis-server")
async def test_probes_and_metrics_respond_beside_full_pools_while_redis_hangs(
    start_process: StartProcess, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    make_job("job-2", status="rendering")
    with redis_server(tmp_path) as redis:
        service = start_process(
            *("--shared-state", redis.url, "--max-downloads", DOWNLOADS, "--max-streams", 2 * STREAMS),
            *("--max-connections", CONNECTIONS),
        )
        async with AsyncExitStack() as stack:
            await take_all_places(service, stack)
            redis.pause()
            stack.callback(redis.resume)
            for _ in range(3):
                for target in ("/healthz", "/readyz", "/metrics"):
                    await answers_in_time(service, target)
            while "down" not in (await service.get("/readyz", token=None)).body.decode():
                await pause()
            for target in ("/healthz", "/readyz", "/metrics"):
                await answers_in_time(service, target)
