"""What AsyncClient does beyond Client: event loops, cancellation, downloads in threads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from jobsvc.client import AsyncClient, BadConfiguration, JobChanged, LogLines
from jobsvc.client.models import Progress
from tests.client.clients import wait_until_ready
from tests.clients.body_pieces import first
from tests.clients.faulty_proxy import Answer, Exchange, FaultyProxy, faulty_proxy
from tests.clients.loopback_server import LoopbackServer
from tests.conftest import MakeJob, Serve, StartProcess
from tests.eventually import pause, until
from tests.programs.service_runner import Service

OPEN_STREAMS: Final = 'jobsvc_event_streams{of="jobs"}'
OPEN_POLLS: Final = "jobsvc_requests_waiting"
FILM: Final = bytes(range(256)) * 20_000

pytestmark = pytest.mark.usefixtures(
    "treat_new_files_as_stable"
)  # so that their digests are computed at once


@asynccontextmanager
async def client_of(service: Service, port: int | None = None) -> AsyncIterator[AsyncClient]:
    await wait_until_ready(service)
    url = f"http://127.0.0.1:{port or service.port}"
    async with AsyncClient(url, service.token, timeout=20) as client:
        yield client


async def hang_after_half(exchange: Exchange) -> Answer:
    """Send the first half of a file, and then nothing."""
    answer = await exchange.forward()
    if exchange.is_file:
        answer.body = _hang_after(answer.body, answer.length // 2)
    return answer


async def _hang_after(body: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    async for piece in first(body, count):
        yield piece
    await asyncio.Event().wait()


@asynccontextmanager
async def hanging_proxy(service: Service) -> AsyncIterator[FaultyProxy]:
    async with faulty_proxy(FaultyProxy(service.port, always=[hang_after_half])) as proxy:
        yield proxy


class SilentServer(LoopbackServer):
    """Accepts requests and never responds."""

    def __init__(self) -> None:
        super().__init__()
        self.requested = asyncio.Event()

    async def serve_connection(
        self,
        number: int,  # noqa: ARG002 - all connections are alike
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,  # noqa: ARG002 - nothing is sent
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requested.set()
        await reader.read()


def client_threads() -> list[str]:
    """Return the names of the threads in which a client downloads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("jobsvc-client")]


def test_aiohttp_is_imported_when_it_is_used() -> None:
    code = (
        "import sys, jobsvc.client\n"
        "assert 'aiohttp' not in sys.modules and 'asyncio' not in sys.modules\n"
        "jobsvc.client.AsyncClient\n"
        "assert 'aiohttp' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_client_is_created_without_an_event_loop_and_used_on_several(
    start_process: StartProcess, make_job: MakeJob
) -> None:
    make_job()
    service = start_process()
    client = AsyncClient(f"http://127.0.0.1:{service.port}", service.token)

    async def status() -> str:
        async with client:
            return (await client.job("job-1")).status

    assert [asyncio.run(status()), asyncio.run(status())] == ["queued", "queued"]


def test_settings_are_checked_when_the_client_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BadConfiguration):
        AsyncClient("ftp://example.com", "token")
    with pytest.raises(BadConfiguration, match="cannot be read"):
        AsyncClient("https://example.com", "token", ca_file=str(tmp_path / "missing.pem"))


async def test_closing_twice_and_without_a_request_is_allowed() -> None:
    client = AsyncClient("http://127.0.0.1:1", "token")
    await client.close()
    await client.close()


async def test_iterators_run_at_the_same_time(serve: Serve, make_job: MakeJob) -> None:
    make_job("a", log=b"1\n", status="failed")
    make_job("b")
    async with client_of(await serve(poll_interval=0.05)) as client:
        async with aclosing(client.watch("b")) as changes, aclosing(client.log("a", follow=True)) as log:
            change, lines = await asyncio.gather(anext(changes), anext(log))
        assert isinstance(change, JobChanged)
        assert lines == LogLines("1\n")


async def test_iterator_that_the_caller_leaves_is_closed(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve()
    async with client_of(service) as client:
        async for _ in client.watch():
            assert await service.metric(OPEN_STREAMS) == 1
            break
        while await service.metric(OPEN_STREAMS):
            await pause()


async def test_cancelled_wait_ends_its_request(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve()
    async with client_of(service) as client:
        waiting = asyncio.ensure_future(client.wait("job-1"))
        while not await service.metric(OPEN_POLLS):
            await pause()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while await service.metric(OPEN_POLLS):
            await pause()


async def test_cancelled_download_has_ended_and_is_continued_by_the_next(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    service = await serve()
    target = tmp_path / "film.mp4"
    received: list[int] = []
    async with hanging_proxy(service) as proxy, client_of(service, proxy.port) as client:
        task = asyncio.ensure_future(
            client.download("job-1", target, progress=lambda progress: received.append(progress.received))
        )
        await until(lambda: received and received[-1] > 0)
        task.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: not client_threads())
    assert not target.exists()
    async with client_of(service) as client:
        (film,) = await client.download("job-1", target)
    assert film.resumed_from > 0
    assert target.read_bytes() == FILM


async def download(client: AsyncClient, target: Path) -> None:
    await client.download("job-1", target)


async def follow(client: AsyncClient, target: Path) -> None:
    await anext(client.sync(target, follow=True))


@pytest.mark.parametrize("work", [download, follow])
async def test_cancellation_ends_a_request_without_a_response(
    tmp_path: Path, work: Callable[[AsyncClient, Path], Coroutine[Any, Any, None]]
) -> None:
    server = SilentServer()
    async with server.serving(), AsyncClient(f"http://127.0.0.1:{server.port}", "token") as client:
        task = asyncio.ensure_future(work(client, tmp_path / "target"))
        async with asyncio.timeout(10):
            await server.requested.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: not client_threads())


async def test_progress_is_called_on_the_event_loop(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    threads = set()
    phases = []

    def on_progress(progress: Progress) -> None:
        threads.add(threading.current_thread())
        phases.append(progress.phase)

    async with client_of(await serve()) as client:
        await client.download("job-1", tmp_path / "film.mp4", progress=on_progress)
    assert threads == {threading.current_thread()}
    assert phases[-1] == "done"


async def test_event_loop_is_free_during_a_download(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    service = await serve()
    async with hanging_proxy(service) as proxy, client_of(service, proxy.port) as client:
        task = asyncio.ensure_future(client.download("job-1", tmp_path / "film.mp4"))
        await until(lambda: any(exchange.is_file for exchange in proxy.exchanges))
        assert (await client.job("job-1")).status == "completed"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_many_downloads_run_at_the_same_time(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    for number in range(20):
        make_job(f"job-{number}", output=b"%d" % number * 1000)
    async with client_of(await serve()) as client:
        await asyncio.gather(
            *(client.download(f"job-{number}", tmp_path / f"{number}.mp4") for number in range(20))
        )
    assert [(tmp_path / f"{number}.mp4").read_bytes() for number in range(20)] == [
        b"%d" % number * 1000 for number in range(20)
    ]


async def test_sync_ends_when_the_caller_breaks_off_and_is_continued_by_the_next(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    for number in range(5):
        make_job(f"job-{number}", output=FILM[:1000])
    target = tmp_path / "copy"
    async with client_of(await serve()) as client:
        async with aclosing(client.sync(target)) as files:
            found = [(await anext(files)).job_id]
        await until(lambda: not client_threads())
        found += [file.job_id async for file in client.sync(target)]
    assert len(found) == len(set(found))
    assert {path.name for path in target.glob("job-*")} == {f"job-{number}" for number in range(5)}


async def test_followed_sync_ends_when_its_task_is_cancelled(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM[:1000])
    found: list[str] = []

    async def follow(client: AsyncClient) -> None:
        async with aclosing(client.sync(tmp_path / "copy", follow=True)) as files:
            async for file in files:
                found.append(file.job_id)  # noqa: PERF401 - each one at once

    async with client_of(await serve(poll_interval=0.05)) as client:
        task = asyncio.ensure_future(follow(client))
        await until(lambda: found == ["job-1"])
        make_job("job-2", output=b"film")
        await until(lambda: found == ["job-1", "job-2"])
        task.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: not client_threads())
