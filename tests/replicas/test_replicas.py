"""Short runs; `python -m tests.replicas` runs longer ones."""

from __future__ import annotations

import pytest

from tests.programs.external_programs import needs
from tests.replicas.burst import burst
from tests.replicas.chaos import Chaos, chaos

pytestmark = pytest.mark.service


@pytest.mark.alone
@pytest.mark.parametrize(
    "proxy",
    [
        pytest.param(name, marks=needs("redis-server", "openssl", program))
        for name, program in (("nginx", "nginx"), ("HAProxy", "haproxy"), ("Caddy", "caddy"))
    ],
)
async def test_requests_at_once_share_one_budget(proxy: str) -> None:
    report = await burst(proxy, replicas=2, requests=600, budget=100, connections=20)
    assert not report.faults, str(report)


@needs("redis-server", "openssl", "haproxy")
async def test_clients_lose_nothing_while_replicas_and_redis_are_killed() -> None:
    plan = Chaos(
        "HAProxy",
        replicas=2,
        seconds=5,
        kill_interval=1.5,
        redis_restarts=1,
        downloads=8,
        client_downloads=1,
        streams=12,
        polls_per_s=50,
        film_size=1 << 20,
        download_rate="500k",
        check_places=False,
    )
    report = await chaos(plan)
    assert not report.faults, str(report)
    assert report.counts["replicas killed"] > 1
    assert report.counts["Redis restarted"] > 0
