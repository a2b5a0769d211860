"""Random faults between client and service during a sync: no file is ever wrong, none is missing at last."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

import pytest

from jobsvc.client import Client, JobsvcError
from tests.client.download.fault_cases import make_case
from tests.clients import proxy_faults
from tests.clients.faulty_proxy import FaultyProxy, faulty_proxy
from tests.conftest import MakeJob, Serve

JOBS: Final = 6
FAULTS: Final = [fault for fault in proxy_faults.FAULTS if fault is not proxy_faults.stall]
CALLS: Final = 25
"""Syncs with faults; one without follows."""


@pytest.mark.parametrize("seed", range(4))
async def test_sync_has_all_files_in_the_end(
    seed: int, serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    kinds = ("file", "sequence")
    cases = [make_case(JOBS * seed + number, make_job, kind=kinds[number % 2]) for number in range(JOBS)]
    service, random, to = await serve(), Random(seed), tmp_path / "to"  # noqa: S311 - no secret
    proxy = FaultyProxy(service.port, seed=seed, faults=FAULTS, share=0.6)
    proxy.replace_output = lambda: random.choice(cases).replace()

    def sync() -> None:
        with Client(f"http://127.0.0.1:{proxy.port}", service.token, retries=1) as client:
            list(client.sync(to))

    to.mkdir()
    async with faulty_proxy(proxy):
        for _ in range(CALLS):
            with suppress(JobsvcError):
                await asyncio.to_thread(sync)
            for case in cases:
                case.check(to / case.job_id, complete=False)
        proxy.budget = 0
        await asyncio.to_thread(sync)
    for case in cases:
        case.check(to / case.job_id, complete=True)
