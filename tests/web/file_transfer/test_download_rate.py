"""`--download-rate`, measured by a client. No test asserts that anything is fast."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack

import pytest

from tests.clients.raw_http import Connection, request
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess
from tests.eventually import until
from tests.programs.service_runner import Service

FILM = os.urandom(300_000)
SMALL = FILM[:50_000]
TARGET = "/api/jobs/job-1/download"


async def arrivals(service: Service, link: Connection, size: int) -> tuple[bytes, list[tuple[float, int]]]:
    """Download this many bytes of body; return how many had arrived after how many seconds."""
    started_at = time.monotonic()
    link.send(request("GET", TARGET, token=service.token))
    assert (await link.head())[1] == 200
    body, seen = b"", []
    while len(body) < size:
        body += await link.reader.read(size - len(body))
        seen.append((time.monotonic() - started_at, len(body)))
    return body, seen


@pytest.mark.both_loops
@pytest.mark.parametrize("film", [FILM, SMALL], ids=["streamed", "in memory"])
async def test_no_byte_arrives_before_its_time(serve: Serve, make_job: MakeJob, film: bytes) -> None:
    make_job(output=film)
    rate = len(film) // 2
    service = await serve(download_rate=rate)
    async with service.connect() as link:
        body, seen = await arrivals(service, link, len(film))
        assert body == film
        assert all(count <= rate * (seconds + 0.25) + 1 for seconds, count in seen)
        assert len(seen) > 10
        assert (await link.ask("GET", "/healthz")).status == 200
    throttled_seconds = await service.metric("jobsvc_download_throttled_seconds_total")
    assert 0.5 < throttled_seconds <= seen[-1][0]
    [line] = await service.wait_for_downloads(1)
    assert (line["outcome"], line["bytesSent"]) == ("complete", len(film))


async def test_multipart_headers_count_towards_the_rate(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    service = await serve(download_rate=2_000)
    started_at = time.monotonic()
    answer = await service.download("job-1", ("Range", "bytes=0-0,100000-100009,-1"))
    assert (answer.status, len(answer.body)) == (206, answer.content_length)
    assert time.monotonic() - started_at >= answer.content_length / 2_000 - 0.01
    assert answer.body.count(b"Content-Range: bytes") == 3
    [line] = await service.wait_for_downloads(1)
    assert (line["outcome"], line["bytesSent"]) == ("complete", 12)


async def test_each_request_starts_without_credit(serve: Serve, make_job: MakeJob) -> None:
    """A client that requests little again and again does not get more."""
    make_job(output=FILM)
    service = await serve(download_rate=10_000)
    started_at = time.monotonic()
    async with service.connect() as link:
        for _ in range(10):
            part = await link.ask("GET", TARGET, [("Range", "bytes=0-499")], token=service.token)
            assert part.body == FILM[:500]
    assert time.monotonic() - started_at >= 0.5 - 0.01


async def test_response_without_a_body_does_not_wait(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    make_job("empty", output=b"")
    service = await serve(download_rate=1)
    head = await service.ask("HEAD", TARGET)
    assert (head.status, head.content_length) == (200, len(FILM))
    assert (await service.download("job-1", ("If-None-Match", head.headers["ETag"]))).status == 304
    empty = await service.download("empty")
    assert (empty.status, empty.body) == (200, b"")
    assert await service.metric("jobsvc_download_throttled_seconds_total") == 0


async def test_throttled_download_holds_no_thread(serve: Serve, make_job: MakeJob) -> None:
    """One job may use three threads; all of its downloads proceed in parallel nonetheless."""
    make_job(output=FILM)
    service = await serve(download_rate=20_000)
    counts = [0] * 12

    async def read(link: Connection, index: int) -> None:
        await link.head()
        while counts[index] < 3_000:
            counts[index] += len(await link.read(500))

    async with AsyncExitStack() as stack:
        links = [await stack.enter_async_context(service.connect()) for _ in counts]
        for link in links:
            link.send(request("GET", TARGET, token=service.token))
        async with asyncio.timeout(30):
            await asyncio.gather(*(read(link, index) for index, link in enumerate(links)))
        assert await service.metric("jobsvc_downloads_in_progress") == len(counts)


@pytest.mark.parametrize("film", [FILM[:70_000], SMALL], ids=["streamed", "in memory"])
async def test_throttled_download_is_not_taken_for_a_slow_client(
    serve: Serve, make_job: MakeJob, film: bytes
) -> None:
    make_job(output=film)
    service = await serve(download_rate=len(film) // 4, send_timeout=2)
    assert (await service.download("job-1")).body == film


async def test_client_that_never_reads_is_disconnected_despite_the_rate(
    serve: Serve, make_job: MakeJob
) -> None:
    with (make_job(output=FILM) / "output" / "film.mp4").open("r+b") as file:
        file.truncate(64_000_000)
    service = await serve(download_rate=100_000_000, send_timeout=0.3)
    async with service.connect(receive_buffer=4096) as link:
        link.send(request("GET", TARGET, token=service.token))
        [line] = await service.wait_for_downloads(1)
    assert line["outcome"] == "client-gone"


@pytest.mark.parametrize("film", [FILM, SMALL], ids=["streamed", "in memory"])
async def test_disconnect_is_noticed_at_the_next_slice(serve: Serve, make_job: MakeJob, film: bytes) -> None:
    make_job(output=film)
    service = await serve(download_rate=1_000)
    async with service.connect() as link:
        link.send(request("GET", TARGET, token=service.token))
        await link.head()
        assert len(await link.read(100)) == 100
        await link.reset()
    [line] = await service.wait_for_downloads(1)
    assert (line["outcome"], line["bytesSent"] < 10_000) == ("client-gone", True)


def test_shutdown_does_not_wait_for_the_rate(start_process: StartProcess, make_job: MakeJob) -> None:
    make_job(output=FILM)
    service = start_process("--download-rate", "1", "--shutdown-grace", "0.2")

    async def begin() -> Connection:
        link = await Connection.open(service.port)
        link.send(request("GET", TARGET, token=service.token))
        assert (await link.head())[1] == 200
        assert len(await link.read(1)) == 1
        service.send_signal()
        await until(lambda: service.process.poll() is not None)
        assert await link.ended() or len(await link.read(10)) < 10
        await link.close()
        return link

    asyncio.run(begin())
    [line] = service.downloads()
    assert line["outcome"] == "shutdown"
    assert service.process.returncode == 0


async def test_which_cap_refused_a_download_is_counted(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=FILM)
    other = make_token()
    service = await serve(download_rate=1_000, max_downloads=1, max_downloads_per_token=1)
    async with service.connect() as link:
        link.send(request("GET", TARGET, token=service.token))
        await link.head()
        assert (await service.download("job-1")).code == "too-many-downloads"
        for _ in range(2):
            assert (await service.download("job-1", token=other)).code == "too-many-downloads"
    assert await service.metric('jobsvc_downloads_refused_total{limit="token"}') == 1
    assert await service.metric('jobsvc_downloads_refused_total{limit="all"}') == 2
