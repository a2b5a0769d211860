"""Short runs; `python -m tests.replicas` runs longer ones."""

from __future__ import annotations

import pytest

from tests.programs.external_programs import needs
from tests.replicas.chaos import Chaos, chaos


@needs("redis-server", "nginx", "openssl")
@pytest.mark.service
async def test_clients_lose_nothing_while_replicas_are_killed() -> None:
    plan = Chaos(
        "nginx",
        replicas=2,
        seconds=6,
        kill_interval=1.5,
        downloads=8,
        client_downloads=1,
        streams=12,
        polls_per_s=50,
        film_size=1 << 20,
        download_rate="500k",
        shared=False,
    )
    report = await chaos(plan)
    assert not report.faults, str(report)
    assert report.counts["replicas killed"] > 1
