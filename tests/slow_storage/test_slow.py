"""Storage that is slow or hangs does not delay requests for other jobs."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index.scan.refresher import MAX_HANGING_CALLS
from jobsvc.service import components
from jobsvc.settings import Settings
from jobsvc.storage import executor
from jobsvc.storage.sendfile import socket_sender
from jobsvc.storage.state import token_file
from tests.checks.open_fds import open_paths
from tests.clients.raw_http import RESPONSE_TIMEOUT_S, Connection, request
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess
from tests.eventually import until
from tests.programs.service_runner import EXIT_TIMEOUT_S, Process, Service, service_in_loop
from tests.slow_storage.fault_modes import METADATA_CALLS
from tests.slow_storage.fuse_mount import FOREVER_S, FaultyStorage
from tests.slow_storage.pending_downloads import (
    FILM,
    OUTPUT,
    download_path,
    read_rest,
    start_download,
    wait_for_answer,
    warm_up,
)

SLOW = tuple(f"slow-{number}" for number in range(4))
ASK_THE_DISK = ("Cache-Control", "no-cache")


@pytest.fixture(autouse=True)
def farm(make_job: MakeJob) -> None:
    """One good job, and some whose storage will be slow or hang."""
    for job_id in ("good", "hung", *SLOW):
        make_job(job_id, output=FILM)


async def refused(service: Service, target: str) -> None:
    answer = await service.get(target)
    assert (answer.status, answer.code) == (503, "storage-unavailable")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.both_loops
async def test_slow_download_is_complete(storage: FaultyStorage, serve: Serve) -> None:
    service = await serve()
    for job_id in SLOW:
        storage.add_fault(f"{job_id}/{OUTPUT}", "read", seconds=0.3)
    answers = await asyncio.gather(*(service.download(job_id) for job_id in SLOW))
    assert [answer.status for answer in answers] == [200] * len(SLOW)
    assert all(answer.body == FILM for answer in answers)
    assert {line["outcome"] for line in await service.wait_for_downloads(len(SLOW))} == {"complete"}


@pytest.mark.both_loops
async def test_hanging_reads_delay_no_other_request(storage: FaultyStorage, serve: Serve) -> None:
    """Three downloads of each job at once: its whole share of the threads."""
    service = await serve()
    for job_id in SLOW:
        storage.add_fault(f"{job_id}/{OUTPUT}", "read", seconds=FOREVER_S)
    async with AsyncExitStack() as stack:
        links = [await start_download(service, stack, job_id) for job_id in SLOW * 3]
        for job_id in ("good", *SLOW):
            assert (await service.get(f"/api/jobs/{job_id}", ASK_THE_DISK)).status == 200
        assert (await service.download("good")).body == FILM
        assert [line["job"] for line in await service.wait_for_downloads(1)] == ["good"]
        storage.clear_faults()
        for link in links:
            assert await read_rest(link) == FILM
    assert {line["outcome"] for line in await service.wait_for_downloads(1 + len(links))} == {"complete"}


@pytest.mark.both_loops
async def test_downloads_in_the_epoll_thread_continue_when_one_of_them_hangs(
    storage: FaultyStorage, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files count as fast here, so all downloads start in the epoll thread; the first hangs in it.

    It hangs for longer than the send timeout, which does not apply: the client is not the cause.
    """
    monkeypatch.setattr(socket_sender, "FAST_CHUNK_S", 60.0)
    storage.add_fault(f"hung/{OUTPUT}", "read", seconds=FOREVER_S, from_offset=500_000)
    service = await serve(send_timeout=2)
    async with AsyncExitStack() as stack:
        hung = await start_download(service, stack, "hung")
        answers = await asyncio.gather(*(service.download(job_id) for job_id in ("good", *SLOW) * 2))
        assert all(answer.body == FILM for answer in answers)
        await wait_for_answer(lambda: stuck(service), 1)
        await asyncio.sleep(2.5)  # longer than the send timeout
        storage.clear_faults()
        assert await read_rest(hung) == FILM
        assert (await service.download("good")).body == FILM


async def test_hanging_metadata_delays_only_its_job(storage: FaultyStorage, serve: Serve) -> None:
    """Its download is refused long before the storage responds; its state is the last known one."""
    service = await serve()
    await warm_up(service, "hung", "good")
    storage.add_fault("hung", *METADATA_CALLS, seconds=25)
    waiting = [asyncio.ensure_future(refused(service, download_path("hung"))) for _ in range(5)]
    assert (await service.download("good")).body == FILM
    assert (await service.get("/api/jobs/good", ASK_THE_DISK)).status == 200
    assert not any(task.done() for task in waiting)
    stale = await service.get("/api/jobs/hung", ASK_THE_DISK)
    assert (stale.status, stale.headers["Cache-Status"][:12]) == (200, "jobsvc; hit;")
    await asyncio.gather(*waiting)
    storage.clear_faults()
    await until(lambda: not open_paths(storage.mountpoint))
    assert (await service.download("hung")).body == FILM


async def test_job_that_hung_from_the_start_is_refused_like_a_known_one(
    storage: FaultyStorage, serve: Serve
) -> None:
    storage.add_fault("hung", *METADATA_CALLS, seconds=FOREVER_S)
    service = await serve()
    assert (await service.download("good")).body == FILM
    await asyncio.gather(refused(service, "/api/jobs/hung"), refused(service, download_path("hung")))


async def test_index_notices_changes_while_other_jobs_hang(
    make_job: MakeJob, storage: FaultyStorage, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each poll leaves a thread stuck at each hanging job; the others are read."""
    monkeypatch.setattr(components, "StorageExecutor", partial(executor.StorageExecutor, deadline=0.2))
    jobs = [make_job(f"job-{number}", status="rendering").name for number in range(3)]
    make_job("other", status="rendering", progress=0)
    service = await serve(poll_interval=0.1)
    await warm_up(service, "other", *jobs)
    for job_id in jobs:
        storage.add_fault(job_id, *METADATA_CALLS, seconds=FOREVER_S)
    for progress in range(1, 30):
        make_job("other", status="rendering", progress=progress)
        await wait_for_answer(lambda: progress_of(service, "other"), progress)


async def test_index_continues_after_many_stuck_threads_return(
    make_job: MakeJob, storage: FaultyStorage, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "StorageExecutor", partial(executor.StorageExecutor, deadline=0.2))
    jobs = [make_job(f"job-{number}", status="rendering", progress=0).name for number in range(12)]
    service = await serve(poll_interval=0.1)
    await warm_up(service, *jobs)
    for job_id in jobs:
        storage.add_fault(job_id, *METADATA_CALLS, seconds=FOREVER_S)

    async def index_stops_reading() -> bool:
        # Calls that ran when the limit was reached can hang, too.
        return await stuck(service) >= MAX_HANGING_CALLS

    async def good() -> bytes:
        return (await service.download("good")).body

    await wait_for_answer(index_stops_reading, expected=True)
    await wait_for_answer(good, FILM)  # on a busy machine, its own deadline can pass too
    for job_id in jobs:
        make_job(job_id, status="rendering", progress=50)
    storage.clear_faults()
    for job_id in jobs:
        await wait_for_answer(partial(progress_of, service, job_id), 50)


async def fill_all_threads(service: Service, hung: list[str]) -> None:
    """Send requests that hang until every thread is stuck."""

    async def good() -> int:
        await asyncio.gather(*(refused(service, download_path(job_id)) for job_id in hung * 3))
        return (await service.download("good")).status

    await wait_for_answer(good, 503)


async def stuck(service: Service) -> float:
    """Return the number of stuck threads of the service."""
    return await service.metric("jobsvc_storage_threads_stuck")


async def progress_of(service: Service, job_id: str) -> object:
    """Read the list, which is served from the index."""
    answer = await service.get("/api/jobs")
    jobs = answer.json()["jobs"] if answer.status == 200 else []  # the first index is not complete yet
    return next((job["progress"] for job in jobs if job["id"] == job_id), None)


async def test_full_thread_pool_refuses_immediately_and_recovers(
    make_job: MakeJob, storage: FaultyStorage, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eleven jobs with three calls each need more threads than there are."""
    monkeypatch.setattr(components, "StorageExecutor", partial(executor.StorageExecutor, deadline=1.5))
    jobs = [make_job(f"job-{number}", output=b"film").name for number in range(12)]
    service = await serve(max_downloads_per_token=100)
    await warm_up(service, *jobs)
    for job_id in jobs[1:]:
        storage.add_fault(job_id, *METADATA_CALLS, seconds=FOREVER_S)
    await fill_all_threads(service, jobs[1:])
    await refused(service, download_path(jobs[0]))
    for job_id in jobs:
        assert (await service.get(f"/api/jobs/{job_id}")).status == 200
    storage.clear_faults()
    await wait_for_answer(lambda: stuck(service), 0)
    assert {(await service.download(job_id)).status for job_id in jobs} == {200}


async def test_shutdown_with_a_full_thread_pool_is_clean(
    make_job: MakeJob,
    storage: FaultyStorage,
    state_dir: Path,
    make_token: MakeToken,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The download log is closed properly too."""
    before = set(threading.enumerate())
    monkeypatch.setattr(components, "StorageExecutor", partial(executor.StorageExecutor, deadline=0.5))
    jobs = [make_job(f"job-{number}", output=b"film").name for number in range(12)]
    settings = Settings(
        storage.mountpoint, state_dir=state_dir, port=0, watch=WatchMode.POLL, max_downloads_per_token=50
    )
    async with service_in_loop(settings, make_token()) as service:
        await warm_up(service, *jobs)
        for job_id in jobs:
            storage.add_fault(job_id, *METADATA_CALLS, seconds=FOREVER_S)
        await fill_all_threads(service, jobs)
    assert "jobsvc-download-log" not in {thread.name for thread in set(threading.enumerate()) - before}


@pytest.mark.both_loops
@pytest.mark.usefixtures("way")
async def test_connection_is_closed_when_a_read_takes_too_long(
    storage: FaultyStorage, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "DATA_DEADLINE_S", 2.0)
    service = await serve()
    storage.add_fault(f"hung/{OUTPUT}", "read", seconds=FOREVER_S, from_offset=len(FILM) // 2)
    async with AsyncExitStack() as stack:
        link = await start_download(service, stack, "hung")
        assert len(await read_rest(link)) < len(FILM)
        (line,) = await service.wait_for_downloads(1)
        assert line["outcome"] == "storage-error"
        assert line["bytesSent"] < line["bytesPromised"] == len(FILM)
        assert open_paths(storage.mountpoint)
    storage.clear_faults()
    await until(lambda: not open_paths(storage.mountpoint))


@pytest.mark.both_loops
@pytest.mark.parametrize("leave", [Connection.close, Connection.reset])
async def test_slot_is_released_when_the_client_of_a_hanging_download_disconnects(
    storage: FaultyStorage, serve: Serve, leave: Callable[[Connection], Awaitable[None]]
) -> None:
    """Otherwise a client that retries would soon have no slot left."""
    service = await serve(max_downloads_per_token=1)
    storage.add_fault(f"hung/{OUTPUT}", "read", seconds=FOREVER_S)
    async with AsyncExitStack() as stack:
        link = await start_download(service, stack, "hung")
        assert (await service.download("good")).status == 429
        await leave(link)
        (line,) = await service.wait_for_downloads(1)
    assert line["outcome"] == "client-gone"
    assert (await service.download("good")).body == FILM
    storage.clear_faults()
    await until(lambda: not open_paths(storage.mountpoint))


@pytest.mark.both_loops
async def test_client_that_never_reads_is_disconnected_and_logged(make_job: MakeJob, serve: Serve) -> None:
    make_job("large", output=FILM * 32)
    service = await serve(send_timeout=1)
    async with service.connect(receive_buffer=4096) as link:
        link.send(request("GET", download_path("large"), token=service.token))
        (line,) = await service.wait_for_downloads(1)
        assert line["outcome"] == "client-gone"
        assert 0 < line["bytesSent"] < line["bytesPromised"] == len(FILM) * 32
        await link.head()
        assert len(await link.read(len(FILM) * 32)) < len(FILM) * 32


@pytest.mark.both_loops
async def test_client_that_reads_a_little_regularly_is_not_disconnected(
    make_job: MakeJob, serve: Serve
) -> None:
    """Less in each --send-timeout than makes its socket writable again."""
    make_job("large", output=FILM * 32)
    service = await serve(send_timeout=2)
    request_bytes = request(
        "GET",
        download_path("large"),
        [("Range", "bytes=0-999999,2000000-")],
        token=service.token,
        version="1.0",
    )
    received = await asyncio.to_thread(accept_slowly, service.port, request_bytes)
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert (await service.wait_for_downloads(1))[0]["outcome"] == "complete"


def accept_slowly(port: int, request_bytes: bytes) -> bytes:
    """Read a little at intervals for some seconds, and then the rest."""
    ends, received = time.monotonic() + 5, bytearray()
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        link.settimeout(RESPONSE_TIMEOUT_S)
        link.connect(("127.0.0.1", port))
        link.sendall(request_bytes)
        while data := link.recv(40_000 if time.monotonic() < ends else 1 << 20):
            received += data
            if time.monotonic() < ends:
                time.sleep(0.1)
    return bytes(received)


def test_process_with_stuck_threads_ends_and_its_clients_notice(
    storage: FaultyStorage, start_process: StartProcess
) -> None:
    """One thread hangs in metadata, one in a read; the download has its log line."""

    async def ask(service: Process) -> None:
        async with AsyncExitStack() as stack:
            storage.add_fault(f"slow-0/{OUTPUT}", "read", seconds=FOREVER_S, from_offset=len(FILM) // 2)
            link = await start_download(service, stack, "slow-0")
            storage.add_fault("hung", *METADATA_CALLS, seconds=FOREVER_S)
            waiting = await stack.enter_async_context(service.connect())
            waiting.send(request("GET", download_path("hung"), token=service.token))
            service.process.send_signal(signal.SIGTERM)
            assert len(await read_rest(link)) < len(FILM)
            assert await waiting.ended()
            assert await asyncio.to_thread(service.process.wait, EXIT_TIMEOUT_S) == 0

    service = start_process("--shutdown-grace", "1")
    try:
        asyncio.run(ask(service))
    finally:
        storage.clear_faults()
    assert [(line["job"], line["outcome"]) for line in service.downloads()] == [("slow-0", "shutdown")]


@pytest.mark.both_loops
async def test_download_of_a_client_that_disconnected_just_before_shutdown_is_logged(
    storage: FaultyStorage, state_dir: Path, make_token: MakeToken
) -> None:
    settings = Settings(
        storage.mountpoint, state_dir=state_dir, port=0, watch=WatchMode.POLL, shutdown_grace=0
    )
    storage.add_fault(f"hung/{OUTPUT}", "read", seconds=FOREVER_S)
    async with service_in_loop(settings, make_token()) as service, AsyncExitStack() as stack:
        await start_download(service, stack, "hung")
    assert [line["outcome"] for line in service.downloads()] == ["shutdown"]


@pytest.mark.alone
async def test_revoked_token_is_rejected_within_two_seconds_while_all_jobs_hang(
    make_job: MakeJob, storage: FaultyStorage, serve: Serve, state_dir: Path
) -> None:
    jobs = [make_job(f"job-{number}", output=FILM).name for number in range(12)]
    service = await serve(max_downloads_per_token=64)  # which also limits the logs in progress
    await warm_up(service, *jobs)
    (token,) = token_file.load(state_dir / "tokens.json")
    for job_id in jobs:
        storage.add_fault(job_id, *METADATA_CALLS, seconds=FOREVER_S)
    waiting = [
        asyncio.ensure_future(service.get(f"/api/jobs/{job_id}/logs")) for job_id in jobs for _ in range(3)
    ]
    await wait_for_answer(lambda: stuck(service), 32)
    token_file.revoke(state_dir / "tokens.json", token.id)
    revoked_at = time.monotonic()
    while (await service.get("/api/jobs/good")).status != 401:
        assert time.monotonic() - revoked_at < 2
    storage.clear_faults()
    await asyncio.gather(*waiting)
