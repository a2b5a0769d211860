"""Waiting and watching against the running service, some through a proxy that cuts connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from jobsvc.client.errors import (
    JobNotFound,
    WaitTimeout,
)
from jobsvc.client.models import Job, JobRemoved
from jobsvc.client.protocol import polled_job
from jobsvc.client.protocol.waiting import wait
from jobsvc.client.protocol.watching import watch
from jobsvc.client.transport.driver import iterate
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index.catalogue import change_journal
from jobsvc.settings import Settings
from tests.client.real_service.operation_caller import Caller, read_completely
from tests.clients.cutting_proxy import cutting_proxy
from tests.conftest import MakeJob, MakeToken, Serve
from tests.eventually import pause, until
from tests.programs.ports import free_port
from tests.programs.service_runner import Service, service_in_loop


def shown(items: list[Any]) -> list[str]:
    return [
        f"-{item.job_id}" if isinstance(item, JobRemoved) else f"{item.job.id} {item.job.status}"
        for item in items
    ]


async def test_wait_reports_each_state_until_the_job_is_final(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    caller, seen = Caller(await serve(poll_interval=0.05)), []
    waiting_for = asyncio.ensure_future(
        caller.run(wait(["job-1"], on_change=lambda job: seen.append(job.status)))
    )
    await until(lambda: seen == ["queued"])
    make_job(status="rendering", progress=50)
    await until(lambda: seen == ["queued", "rendering"])
    make_job(status="failed", error="No licence.")
    (job,) = await waiting_for
    assert (seen, job.error) == (["queued", "rendering", "failed"], "No licence.")


async def test_wait_polls_as_rarely_as_the_service_allows(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polled_job, "POLL_S", 1.0)
    monkeypatch.setattr(polled_job, "MIN_INTERVAL_S", 2.5)  # the last poll may be too short to wait at all
    make_job()
    service = await serve()
    with pytest.raises(WaitTimeout, match=r"job-1 \(queued\)"):
        await Caller(service).run(wait(["job-1"], timeout=4.0))
    assert 2 <= await service.answer_count(304) <= 5


async def test_wait_for_several_over_cut_connections(serve: Serve, make_job: MakeJob) -> None:
    for name in ("a", "b", "c"):
        make_job(name)
    for number in range(50):
        make_job(f"other-{number}")
    service = await serve(poll_interval=0.05)
    async with cutting_proxy(service.port, *range(900, 20_000, 700)) as proxy:
        caller, seen = Caller(service, proxy.port), list[Job]()
        waiting_for = asyncio.ensure_future(caller.run(wait(["a", "b", "c"], on_change=seen.append)))
        await until(lambda: len(seen) == 3)
        make_job("b", output=b"film")
        make_job("c", status="canceled")
        await until(lambda: len(seen) == 5)
        make_job("a", status="failed")
        assert [job.status for job in await waiting_for] == ["failed", "completed", "canceled"]
        assert len(seen) == 6
        assert proxy.cut_count > 5


async def test_timeout_of_several_jobs_ends_a_quiet_stream(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    make_job("job-2")
    service = await serve()
    await read_completely(service)
    caller, started_at = Caller(service), monotonic()
    with pytest.raises(WaitTimeout) as caught:
        await caller.run(wait(["job-1", "job-2"], timeout=3))
    assert {job.id for job in caught.value.jobs} == {"job-1", "job-2"}
    assert monotonic() - started_at < 10  # a comment would come after 15 s


async def test_wait_for_a_job_that_is_deleted(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job()
    make_job("job-2")
    caller = Caller(await serve(poll_interval=0.05))
    for job_ids in (["job-1"], ["job-1", "job-2"]):
        seen: list[Job] = []
        waiting_for = asyncio.ensure_future(caller.run(wait(job_ids, on_change=seen.append)))
        await until(lambda: len(seen) == len(job_ids))  # noqa: B023 - awaited at once
        folder.rename(folder.with_name(".gone"))
        with pytest.raises(JobNotFound, match="job-1: the job was deleted"):
            await waiting_for
        folder.with_name(".gone").rename(folder)


@asynccontextmanager
async def service_at(port: int, jobs_root: Path, state_dir: Path, token: str) -> AsyncIterator[Service]:
    """Run the service at a port of loopback."""
    settings = Settings(
        jobs_root,
        state_dir=state_dir,
        port=port,
        watch=WatchMode.POLL,
        poll_interval=0.05,
        shutdown_grace=0.2,
    )
    async with service_in_loop(settings, token) as service:
        yield service


async def test_wait_and_watch_survive_a_restart(
    jobs_root: Path, state_dir: Path, make_token: MakeToken, make_job: MakeJob
) -> None:
    for name in ("a", "b", "c"):
        make_job(name)
    token, states, changes = make_token(), list[Job](), list[Any]()
    async with service_at(free_port(), jobs_root, state_dir, token) as service:
        waiting_caller, watching_caller = Caller(service), Caller(service)
        one = asyncio.ensure_future(waiting_caller.run(wait(["a"], on_change=states.append)))
        several = asyncio.ensure_future(waiting_caller.run(wait(["b", "c"])))
        watching = watching_caller.start(watch(), changes, 6)
        await until(lambda: len(states) == 1 and len(changes) == 3)
    make_job("a", output=b"film")
    make_job("b", status="failed")
    (jobs_root / "c").rename(jobs_root / ".gone")
    with pytest.raises(WaitTimeout, match=r"a \(state unknown\).*refused"):
        await waiting_caller.run(wait(["a"], timeout=0.2))
    (jobs_root / ".gone").rename(jobs_root / "c")
    async with service_at(service.port, jobs_root, state_dir, token):
        assert [job.status for job in await one] == ["completed"]
        await until(lambda: len(changes) == 5)
        assert sorted(shown(changes[3:])) == ["a completed", "b failed"]
        make_job("c", status="canceled")
        assert [job.status for job in await several] == ["failed", "canceled"]
        await watching
        assert shown(changes[5:]) == ["c canceled"]


def collect_until_removed(caller: Caller, changes: list[Any]) -> None:
    """Watch all jobs until one is removed."""
    for change in iterate(watch(), caller.transport):
        changes.append(change)
        if isinstance(change, JobRemoved):
            return


async def test_wait_and_watch_go_on_at_another_replica_without_a_new_list(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_journal, "MARGIN_S", 0.0)  # both have the same clock, and nothing is cached
    folders = [make_job(name) for name in ("a", "b", "c", "d")]
    other, changes = await serve(poll_interval=0.05), list[Any]()
    await read_completely(other)
    service = await serve(poll_interval=0.05)
    async with cutting_proxy(service.port, 4000, 4000) as proxy:
        caller = Caller(other, proxy.port)
        several = asyncio.ensure_future(caller.run(wait(["b", "c"])))
        watching = asyncio.ensure_future(asyncio.to_thread(collect_until_removed, caller, changes))
        await until(lambda: len(changes) == 4)
        proxy.upstream = other.port
        progress = 0
        while proxy.cut_count < 2:  # events fill what is left of both connections
            progress = (progress + 1) % 100
            make_job("d", status="rendering", progress=progress)
            await pause()
        make_job("a", output=b"film")
        make_job("b", status="failed")
        make_job("c", status="canceled")
        assert [job.status for job in await several] == ["failed", "canceled"]
        await until(lambda: {"a completed", "b failed", "c canceled"} <= set(shown(changes)))
        folders[3].rename(folders[3].with_name(".gone"))
        await watching
        assert shown(changes[-1:]) == ["-d"]
    assert await other.metric('jobsvc_event_streams_resumed_total{kept="jobs"}') == 2
    assert await other.metric('jobsvc_event_streams_resumed_total{kept="nothing"}') == 0


async def test_one_job_is_watched_until_it_is_final(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service, changes = await serve(poll_interval=0.05), list[Any]()
    async with cutting_proxy(service.port, 700, 1200, 1200) as proxy:
        watching = Caller(service, proxy.port).start(watch(["job-1"]), changes)
        await until(lambda: len(changes) == 1)
        make_job(status="rendering")
        await until(lambda: len(changes) == 2)
        make_job(status="failed")
        await watching
    assert shown(changes) == ["job-1 queued", "job-1 rendering", "job-1 failed"]


async def test_watch_of_all_jobs_tells_what_is_removed(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job("a", status="rendering")
    make_job("b", status="rendering")
    caller, changes = Caller(await serve(poll_interval=0.05)), list[Any]()
    watching = caller.start(watch(status=["rendering"]), changes, 4)
    await until(lambda: len(changes) == 2)
    make_job("b", status="failed")
    await until(lambda: len(changes) == 3)
    folder.rename(folder.with_name(".gone"))
    await watching
    assert shown(changes[2:]) == ["-b", "-a"]
