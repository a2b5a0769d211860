"""Kills replicas and Redis again and again while clients download, follow and poll."""

from __future__ import annotations

import asyncio
import random
import re
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.conftest import job_maker
from tests.eventually import until
from tests.replicas.downloads import Film, ResumingClient, download_with_client
from tests.replicas.group import ReplicaGroup, replica_group
from tests.replicas.places import check_all_places_are_free
from tests.replicas.polls import Pollers
from tests.replicas.render_farm import OWNER, RenderFarm
from tests.replicas.report import Report
from tests.replicas.streams import AllJobsClient, JobClient, LogClient
from tests.replicas.trouble import check_logs, kill_replicas, trouble_redis

UNLIMITED: Final = "100000000/minute"
TOKENS: Final = 8
DOWNLOADS_PER_TOKEN: Final = 16
"""Default of --max-downloads-per-token."""
SETTLE_S: Final = 30.0
"""Seconds after the end in which every client has every final state, and every place is free."""
_OPTIONS: Final = (
    *("--limit-status", UNLIMITED, "--limit-list", UNLIMITED, "--limit-events", UNLIMITED),
    *("--limit-logs", UNLIMITED, "--limit-download", UNLIMITED),
    *("--max-downloads-per-token", DOWNLOADS_PER_TOKEN),
)


@dataclass(frozen=True)
class Chaos:
    """What happens in a run."""

    proxy: str
    replicas: int
    seconds: float = 120.0
    kill_interval: float = 5.0
    redis_restarts: int = 0
    """Beside them Redis hangs half as often, and loses its data half as often."""
    downloads: int = 50
    client_downloads: int = 5
    """Of them, those by jobsvc.client."""
    streams: int = 200
    polls_per_s: float = 500.0
    film_size: int = 16 << 20
    download_rate: str = "1M"
    active_jobs: int = 20
    writes_per_s: float = 15.0
    shared: bool = True
    check_places: bool = True
    """At the end; leases of a replica that was killed last 20 s."""


async def chaos(plan: Chaos) -> Report:
    """Run it and return what was found."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="jobsvc-chaos-") as name:
        folder = Path(name)
        root = folder / "jobs"
        root.mkdir()
        films = [_film(root, number, plan.film_size) for number in range(6)]
        farm = RenderFarm(root, active=plan.active_jobs, writes_per_s=plan.writes_per_s)
        options = (*_OPTIONS, "--download-rate", plan.download_rate)
        async with replica_group(
            folder,
            root,
            proxy=plan.proxy,
            count=plan.replicas,
            owners=[OWNER] * TOKENS,
            options=options,
            shared=plan.shared,
        ) as group:
            run = _Run(plan, group, farm, films, report)
            try:
                await run.run()
            finally:
                await asyncio.to_thread(farm.finish)
    return report


class _Run:
    """The clients of one run, and what happens to replicas and Redis meanwhile."""

    def __init__(
        self, plan: Chaos, group: ReplicaGroup, farm: RenderFarm, films: list[Film], report: Report
    ) -> None:
        self._plan, self._group, self._farm, self._films, self._report = plan, group, farm, films, report
        self._all_jobs = [AllJobsClient(farm, report, each) for each in group.services(plan.streams * 2 // 5)]
        self._one_job: list[JobClient | LogClient] = [
            (JobClient if number % 2 else LogClient)(farm, report, each)
            for number, each in enumerate(group.services(plan.streams - len(self._all_jobs)))
        ]

    async def run(self) -> None:
        self._farm.start()
        async with AsyncExitStack() as stack:
            for client in self._endless_clients():
                await stack.enter_async_context(self._running(client))
            ending = [asyncio.create_task(client.run()) for client in self._one_job]
            ending += self._client_downloads()
            await self._trouble()
            await asyncio.to_thread(self._farm.finish)
            await self._wait_for_clients(ending)
        if self._plan.check_places:
            await check_all_places_are_free(
                self._group, self._films[0].job_id, DOWNLOADS_PER_TOKEN, SETTLE_S, self._report
            )
        check_logs(self._group, self._report)

    def _endless_clients(self) -> Iterator[Coroutine[Any, Any, None]]:
        plan, group = self._plan, self._group
        if plan.polls_per_s:
            services = group.services(int(max(plan.polls_per_s / 10, 1)))
            yield Pollers(self._farm, self._report).run(services, plan.polls_per_s)
        for service in group.services(plan.downloads - plan.client_downloads):
            yield ResumingClient(self._report, service, self._films).run()
        for client in self._all_jobs:
            yield client.run()

    @asynccontextmanager
    async def _running(self, client: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run a client that never ends during the block."""
        task = asyncio.create_task(client)
        try:
            yield
        finally:
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(result, Exception):
                self._report.fault("a client failed", repr(result))

    def _client_downloads(self) -> list[asyncio.Task[None]]:
        deadline = time.monotonic() + self._plan.seconds
        tasks = []
        for number, service in enumerate(self._group.services(self._plan.client_downloads)):
            folder = self._group.folder / f"client-{number}"
            folder.mkdir()
            film = self._films[number % len(self._films)]
            proxy, token = self._group.proxy, service.token
            download = partial(download_with_client, self._report, proxy, token, film, folder, deadline)
            tasks.append(asyncio.create_task(asyncio.to_thread(download)))
        return tasks

    async def _trouble(self) -> None:
        """Kill replicas, and have Redis restart, hang and lose its data, until the time is over."""
        stop = asyncio.Event()
        polls, started_at = self._polls(), time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill_replicas(self._group, self._plan.kill_interval, stop, self._report))
            if self._plan.redis_restarts:
                interval = self._plan.seconds / (self._plan.redis_restarts + 0.5)
                tasks.create_task(trouble_redis(self._group, interval, stop, self._report))
            await asyncio.sleep(self._plan.seconds)
            elapsed = time.monotonic() - started_at
            self._report.figures["polls a second"] = (self._polls() - polls) / elapsed
            stop.set()

    def _polls(self) -> int:
        """Return the number of polls that were answered so far, by status."""
        counts = self._report.counts.items()
        return sum(number for name, number in counts if re.fullmatch(r"polls: \d\d\d", name))

    async def _wait_for_clients(self, ending: list[asyncio.Task[None]]) -> None:
        """Wait until every stream has sent every final state."""
        with suppress(AssertionError):
            await until(lambda: not any(client.missed() for client in self._all_jobs), SETTLE_S)
        _, late = await asyncio.wait(ending, timeout=SETTLE_S)
        for client in self._all_jobs:
            if missed := client.missed():
                self._report.fault(f"{client.kind}: final states missed", missed)
        for task in late:
            self._report.fault("a client of one job does not end")
            task.cancel()
        for result in await asyncio.gather(*ending, return_exceptions=True):
            if isinstance(result, Exception):
                self._report.fault("a client failed", repr(result))


def _film(root: Path, number: int, size: int) -> Film:
    data = random.Random(number).randbytes(size)  # noqa: S311 - no secret
    job_id = f"film-{number}"
    job_maker(root)(job_id, output=data, metadata={"step": 0})
    return Film(job_id, data)
