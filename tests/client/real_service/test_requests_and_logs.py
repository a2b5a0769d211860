"""Single requests and logs against the running service, some through a proxy that cuts connections."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from jobsvc.client.errors import (
    ConnectionFailed,
    JobNotFound,
    NotReady,
    OutputMissing,
    Unauthorized,
)
from jobsvc.client.models import LogLines
from jobsvc.client.protocol import api
from jobsvc.client.protocol.job_log import read_log
from jobsvc.client.protocol.waiting import wait
from jobsvc.client.protocol.watching import watch
from tests.client.real_service.operation_caller import Caller, read_completely
from tests.clients.cutting_proxy import cutting_proxy
from tests.conftest import MakeJob, Serve, put
from tests.eventually import until

FOLLOWED_LINES = int(os.environ.get("JOBSVC_TEST_LOG_LINES", "50000"))
FOLLOWED_CUTS = int(os.environ.get("JOBSVC_TEST_LOG_CUTS", "20"))
"""The same test runs with a million lines and 100 cuts."""


def append(folder: Path, data: bytes) -> None:
    with (folder / "render.log").open("ab") as log:
        log.write(data)


async def test_jobs_are_listed_over_pages(serve: Serve, make_job: MakeJob) -> None:
    for number in range(230):
        make_job(f"job-{number}", status="failed" if number % 2 else "queued")
    service = await serve()
    await read_completely(service)
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
