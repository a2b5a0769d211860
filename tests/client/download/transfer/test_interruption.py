"""Downloads that are stopped, interrupted or killed, and the next ones that continue."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from jobsvc.client import ConnectionFailed, DownloadError, Progress
from jobsvc.client.download.job_download import download_job
from jobsvc.client.download.local import part_file
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.download.transfer import run
from jobsvc.client.errors import Stopped
from tests.client.download.job_downloads import client, content, download, make_sequence, names
from tests.clients.body_pieces import stall_after
from tests.clients.faulty_proxy import Answer, Exchange, FaultyProxy, faulty_proxy
from tests.conftest import MakeJob, Serve, StartProcess

FILM = os.urandom(400_000)
BEFORE_STALL: Final = 21_000
"""Bytes; of four connections the last ones are not in the record yet when they stall."""

pytestmark = pytest.mark.usefixtures("small_segments", "rare_records")


@pytest.fixture
def rare_records(small_segments: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_file, "CHUNK", 50_000)


async def stall_bodies(exchange: Exchange) -> Answer:
    """Send the first bytes of each part of a file, and then nothing."""
    answer = await exchange.forward()
    if exchange.is_file:
        answer.body = stall_after(answer.body, BEFORE_STALL)
    return answer


def stop_after(count: int, action: Callable[[], object]) -> Callable[[Progress], None]:
    """Return a progress function that does something once `count` bytes were received."""

    def report(progress: Progress) -> None:
        if progress.received >= count:
            action()

    return report


async def test_stopped_download_ends_at_once_and_is_continued(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "STOP_TIMEOUT_S", 60.0)  # the threads end before
    make_job(output=FILM)
    service = await serve()
    stop = threading.Event()
    stopped_at: list[float] = []

    def note_and_stop() -> None:
        stopped_at.append(time.monotonic())
        stop.set()

    def start() -> None:
        options = DownloadOptions(progress=stop_after(4 * BEFORE_STALL, note_and_stop), stop=stop)
        with client(service, proxy.port) as own:
            download_job(own._transport, own._settings, "job-1", tmp_path / "to.mp4", options=options)

    async with faulty_proxy(FaultyProxy(service.port, always=[stall_bodies])) as proxy:
        with pytest.raises(Stopped):
            await asyncio.to_thread(start)
        assert time.monotonic() - stopped_at[0] < 10
    assert names(tmp_path, "to*") == ["to.mp4.part", "to.mp4.part.json"]
    (result,) = await download(service, tmp_path / "to.mp4")
    assert result.resumed_from == 4 * BEFORE_STALL
    assert (tmp_path / "to.mp4").read_bytes() == FILM


async def test_exception_of_progress_leaves_a_state_that_is_continued(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    service = await serve()

    def interrupt() -> None:
        raise KeyboardInterrupt

    def start() -> None:
        with client(service, proxy.port) as own, pytest.raises(KeyboardInterrupt):
            own.download("job-1", tmp_path / "to.mp4", progress=stop_after(4 * BEFORE_STALL, interrupt))

    async with faulty_proxy(FaultyProxy(service.port, always=[stall_bodies])) as proxy:
        await asyncio.to_thread(start)
    (result,) = await download(service, tmp_path / "to.mp4")
    assert result.resumed_from == 4 * BEFORE_STALL
    assert (tmp_path / "to.mp4").read_bytes() == FILM


async def test_failed_download_is_continued(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[stall_bodies])) as proxy:
        with client(service, proxy.port, retries=0, timeout=3) as own, pytest.raises(ConnectionFailed):
            await asyncio.to_thread(own.download, "job-1", tmp_path / "to.mp4")
    (result,) = await download(service, tmp_path / "to.mp4")
    assert result.resumed_from > 0
    assert (tmp_path / "to.mp4").read_bytes() == FILM


async def test_part_of_a_replaced_file_is_discarded(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[stall_bodies])) as proxy:
        with client(service, proxy.port, retries=0, timeout=3) as own, pytest.raises(ConnectionFailed):
            await asyncio.to_thread(own.download, "job-1", tmp_path / "to.mp4")
    new = os.urandom(len(FILM))
    make_job(output=new)
    (result,) = await download(service, tmp_path / "to.mp4")
    assert result.resumed_from == 0
    assert (tmp_path / "to.mp4").read_bytes() == new


async def test_renamed_download_continues_its_own_part_file(
    serve: Serve, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(output=FILM)
    (tmp_path / "to.mp4").write_bytes(b"mine")
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[stall_bodies])) as proxy:
        with client(service, proxy.port, retries=0, timeout=3) as own, pytest.raises(ConnectionFailed):
            await asyncio.to_thread(own.download, "job-1", tmp_path / "to.mp4", exists="rename")
    (result,) = await download(service, tmp_path / "to.mp4", exists="rename")
    assert result.path == tmp_path / "to-1.mp4"
    assert result.resumed_from > 0


async def test_two_downloads_of_the_same_file(serve: Serve, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=FILM)
    service = await serve()
    async with faulty_proxy(FaultyProxy(service.port, always=[stall_bodies])) as proxy:
        with client(service, proxy.port, retries=0, timeout=5) as first:
            begun = threading.Event()
            running = asyncio.ensure_future(
                asyncio.to_thread(
                    first.download, "job-1", tmp_path / "to.mp4", progress=stop_after(1, begun.set)
                )
            )
            await asyncio.to_thread(begun.wait)
            with pytest.raises(DownloadError, match="another process"):
                await download(service, tmp_path / "to.mp4")
            with pytest.raises(ConnectionFailed):
                await running


PROGRAM = """
import os, signal, sys
from jobsvc.client import Client
from jobsvc.client.download import source
from jobsvc.client.download.local import part_file
source.PARALLEL_SIZE, source.MAX_SEGMENT, source.CHUNK = 1_000_000, 2_000_000, 100_000
part_file.CHUNK = 100_000
url, token, to, end = sys.argv[1:]
write = part_file.PartFile._write_record
def write_and_die(part):
    write(part)
    os.kill(os.getpid(), signal.SIGKILL)
if end == "killed":
    part_file.PartFile._write_record = write_and_die
Client(url, token).download("job-1", to)
"""
"""Downloads; the process can be killed when it has written its first record."""


def test_killed_downloads_are_continued(
    start_process: StartProcess, make_job: MakeJob, tmp_path: Path
) -> None:
    film = os.urandom(20_000_000)
    make_job(output=film)
    service = start_process()
    address = (f"http://127.0.0.1:{service.port}", service.token or "")
    command = [sys.executable, "-c", PROGRAM, *address, str(tmp_path / "to.mp4")]
    for _ in range(3):
        assert subprocess.run([*command, "killed"], check=False).returncode == -signal.SIGKILL
    subprocess.run([*command, "completed"], check=True)
    assert (tmp_path / "to.mp4").read_bytes() == film
    assert names(tmp_path, "to*") == ["to.mp4"]


async def test_interrupted_batch_is_continued(
    serve: Serve, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PROGRESS_INTERVAL_S", 0.001)
    frames = make_sequence(make_job, 60)
    service = await serve()

    def interrupt(progress: Progress) -> None:
        if progress.files_done >= 20:
            raise KeyboardInterrupt

    def start() -> None:
        with client(service) as own, pytest.raises(KeyboardInterrupt):
            own.download("job-1", tmp_path / "to", progress=interrupt)

    await asyncio.to_thread(start)
    results = await download(service, tmp_path / "to")
    assert content(tmp_path / "to") == frames
    assert sum(result.skipped for result in results) >= 20
