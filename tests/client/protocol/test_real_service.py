"""Operations over HttpTransport against the running service, some through a proxy that cuts connections."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from jobsvc.client.connection_settings import ConnectionSettings
from jobsvc.client.errors import (
    ConnectionFailed,
    JobNotFound,
    NotReady,
    OutputMissing,
    Unauthorized,
    WaitTimeout,
)
from jobsvc.client.models import Job, JobRemoved, LogLines
from jobsvc.client.protocol import api, retry, waiting
from jobsvc.client.protocol.job_log import read_log
from jobsvc.client.protocol.steps import Operation
from jobsvc.client.protocol.waiting import wait
from jobsvc.client.protocol.watching import watch
from jobsvc.client.transport.driver import iterate, run
from jobsvc.client.transport.http_transport import HttpTransport
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.settings import Settings
from tests.clients.cutting_proxy import cutting_proxy
from tests.conftest import MakeJob, MakeToken, Serve, put
from tests.eventually import pause, until
from tests.programs.service_runner import Service, service_in_loop

FOLLOWED_LINES = int(os.environ.get("JOBSVC_TEST_LOG_LINES", "50000"))
FOLLOWED_CUTS = int(os.environ.get("JOBSVC_TEST_LOG_CUTS", "20"))
"""The same test runs with a million lines and 100 cuts."""


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.002)
    monkeypatch.setattr(waiting, "MIN_INTERVAL_S", 0.0)


class Caller:
    """Runs operations in threads, as the blocking client does."""

    def __init__(self, service: Service, port: int | None = None, token: str | None = None) -> None:
        settings = ConnectionSettings(
            f"http://127.0.0.1:{port or service.port}", token or service.token or "", timeout=20
        )
        self.transport = HttpTransport(settings)

    async def run(self, operation: Operation[Any]) -> Any:
        return await asyncio.to_thread(run, operation, self.transport)

    async def all(self, operation: Operation[None]) -> list[Any]:
        return await asyncio.to_thread(lambda: list(iterate(operation, self.transport)))

    def start(
        self, operation: Operation[None], items: list[Any], count: int | None = None
    ) -> asyncio.Task[None]:
        """Collect what is emitted, until the end or until there are `count` items."""

        def collect() -> None:
            for item in iterate(operation, self.transport):
                items.append(item)
                if len(items) == count:
                    return

        return asyncio.ensure_future(asyncio.to_thread(collect))


def append(folder: Path, data: bytes) -> None:
    with (folder / "render.log").open("ab") as log:
        log.write(data)


def shown(items: list[Any]) -> list[str]:
    return [
        f"-{item.job_id}" if isinstance(item, JobRemoved) else f"{item.job.id} {item.job.status}"
        for item in items
    ]


async def test_jobs_are_listed_over_pages(serve: Serve, make_job: MakeJob) -> None:
    for number in range(230):
        make_job(f"job-{number}", status="failed" if number % 2 else "queued")
    service = await serve()
    while (await service.get("/readyz", token=None)).status != 200:
        await pause()
    caller = Caller(service)
    jobs = await caller.all(api.list_jobs(5))
    assert {job.id for job in jobs} == {f"job-{number}" for number in range(230)}
    assert len(jobs) == 230
    failed = await caller.all(api.list_jobs(5, status=["failed"], limit=3))
    assert [job.status for job in failed] == ["failed"] * 3
    assert await caller.all(api.list_jobs(5, updated_since="2100-01-01T00:00:00Z")) == []


async def test_job_files_link_and_token(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"film")
    make_job("job-2", status="failed", error="No licence.")
    caller = Caller(await serve())
    job = await caller.run(api.get_job(5, "job-1"))
    assert (job.status, job.outputs[0].name, job.etag[0]) == ("completed", "main", '"')
    assert (await caller.run(api.get_job(5, "job-2", fresh=True))).error == "No licence."
    (file,) = await caller.all(api.list_files(5, "job-1", want_digests=True))
    assert (file.output, file.path, file.size, file.frame) == ("main", "film.mp4", 4, None)
    link = await caller.run(api.create_link(5, "http://x.example", "job-1", expires_in=60, file="main"))
    assert link.url.startswith("http://x.example/api/jobs/job-1/")
    token = await caller.run(api.get_token_info(5))
    assert (token.owner, token.scopes, token.expires_at) == ("anna", ("jobs:read", "outputs:read"), None)


async def test_refusals_of_the_service(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve()
    caller = Caller(service)
    for operation, error in (
        (caller.run(api.get_job(5, "unknown")), JobNotFound),
        (caller.run(wait(["unknown"])), JobNotFound),
        (caller.run(wait(["job-1", "unknown"])), JobNotFound),
        (caller.all(watch(["unknown"])), JobNotFound),
        (caller.all(api.list_files(5, "job-1")), NotReady),
        (caller.all(read_log(5, "job-1")), OutputMissing),
        (Caller(service, token="x" * 43).run(wait(["job-1"])), Unauthorized),
        (Caller(service, token="x" * 43).all(watch()), Unauthorized),
    ):
        with pytest.raises(error):
            await operation


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
    monkeypatch.setattr(waiting, "POLL_S", 0.4)
    make_job()
    service = await serve()
    with pytest.raises(WaitTimeout, match=r"job-1 \(queued\)"):
        await Caller(service).run(wait(["job-1"], timeout=1.2))
    assert 2 <= await service.answer_count(304) <= 4


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
    async with service_at(0, jobs_root, state_dir, token) as service:
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


def log_lines(count: int) -> Iterator[bytes]:
    random = Random(7)  # noqa: S311 - test data
    for number in range(count):
        yield f"frame {number}: {'größer ' * random.randrange(8)}\n".encode()


async def test_followed_log_over_cut_connections_equals_the_file(serve: Serve, make_job: MakeJob) -> None:
    folder = make_job(status="rendering", log=b"")
    service = await serve(poll_interval=0.05)
    lines = list(log_lines(FOLLOWED_LINES))
    size, step = sum(map(len, lines)), max(1, len(lines) // 200)
    random = Random(1)  # noqa: S311 - test data
    # An event has up to 64 KiB: connections that are cut earlier may bring nothing.
    cuts = [random.randrange(500, int(1.2 * size / FOLLOWED_CUTS)) for _ in range(FOLLOWED_CUTS)]
    async with cutting_proxy(service.port, *cuts) as proxy:
        items: list[Any] = []
        reading = Caller(service, proxy.port).start(read_log(5, "job-1", follow=True), items)
        for start in range(0, len(lines), step):
            append(folder, b"".join(lines[start : start + step]))
            await asyncio.sleep(0)
        put(folder / "status.json", b'{"status": "completed", "owner": "anna"}')
        await reading
        assert proxy.cut_count == FOLLOWED_CUTS
    assert all(isinstance(item, LogLines) for item in items)
    assert "".join(item.text for item in items).encode() == (folder / "render.log").read_bytes()


async def test_log_that_grows_is_read_over_cut_connections(serve: Serve, make_job: MakeJob) -> None:
    data = b"".join(log_lines(20_000))
    folder = make_job(status="rendering", log=data)
    service = await serve()
    async with cutting_proxy(service.port, 60_000, 90_000, 150_000, 200_000) as proxy:
        items: list[Any] = []
        reading = Caller(service, proxy.port).start(read_log(5, "job-1"), items)
        await until(lambda: items)
        append(folder, b"later\n")
        await reading
        assert proxy.cut_count == 4
    assert "".join(item.text for item in items).encode() == data
    tail = await Caller(service).all(read_log(5, "job-1", tail=2))
    assert (
        "".join(item.text for item in tail).encode()
        == b"".join(data.splitlines(keepends=True)[-1:]) + b"later\n"
    )


async def test_wrong_url_is_named(serve: Serve, unused_tcp_port: int) -> None:
    service = await serve()
    with pytest.raises(ConnectionFailed, match="refused"):
        await Caller(service, unused_tcp_port).run(api.get_job(1, "job-1"))
    with pytest.raises(JobNotFound):
        await Caller(service).run(api.get_job(1, ".."))
