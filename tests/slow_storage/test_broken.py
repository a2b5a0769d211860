"""Storage that fails during a download.

Wrong bytes never end in a complete response, and a resumed download gets all bytes.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.checks.open_fds import open_paths
from tests.clients.raw_http import Answer, IncompleteAnswer, request
from tests.conftest import MakeJob, Serve, put
from tests.eventually import until
from tests.programs.service_runner import Service
from tests.slow_storage.fault_modes import METADATA_CALLS
from tests.slow_storage.fuse_mount import FOREVER_S, FaultyStorage
from tests.slow_storage.pending_downloads import (
    FILM,
    OUTPUT,
    download_path,
    read_rest,
    start_download,
    warm_up,
)

MIDDLE = len(FILM) // 2
OTHER = FILM[::-1]

pytestmark = [pytest.mark.both_loops, pytest.mark.usefixtures("way")]


@pytest.fixture
def output(make_job: MakeJob) -> Path:
    """The job's output as the farm sees it."""
    return make_job(output=FILM) / OUTPUT


async def download_incomplete(service: Service) -> Answer:
    """Download a file that cannot be sent completely; everything up to the break is correct."""
    with pytest.raises(IncompleteAnswer) as cut:
        await service.download("job-1")
    answer = cut.value.answer
    assert answer is not None
    assert (answer.status, answer.content_length) == (200, len(FILM))
    assert FILM.startswith(answer.body)
    return answer


async def resume_download(service: Service, before: Answer) -> Answer:
    """Request the rest as clients do: of that version, or else all of the new one."""
    range_fields = ("Range", f"bytes={len(before.body)}-"), ("If-Range", before.headers["ETag"])
    return await service.download("job-1", *range_fields)


async def outcome(service: Service) -> str:
    line = (await service.wait_for_downloads(1))[0]
    assert line["bytesSent"] < line["bytesPromised"] == len(FILM)
    return str(line["outcome"])


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EAGAIN, errno.ETIMEDOUT])
async def test_failed_read_breaks_the_download_and_it_can_be_resumed(
    output: Path, storage: FaultyStorage, serve: Serve, number: int
) -> None:
    service = await serve()
    storage.add_fault(f"job-1/{OUTPUT}", "read", error=number, from_offset=MIDDLE)
    before = await download_incomplete(service)
    assert await outcome(service) == "storage-error"
    storage.clear_faults()
    again = await resume_download(service, before)
    assert (again.status, before.body + again.body) == (206, FILM)


async def test_stale_file_handle_is_reopened(output: Path, storage: FaultyStorage, serve: Serve) -> None:
    service = await serve()
    await warm_up(service, "job-1")
    storage.add_fault(f"job-1/{OUTPUT}", "open", error=errno.ESTALE, times=2)
    assert (await service.download("job-1")).body == FILM


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
async def test_output_that_cannot_be_opened_is_not_reported_as_missing(
    output: Path, storage: FaultyStorage, serve: Serve, number: int
) -> None:
    service = await serve()
    await warm_up(service, "job-1")
    storage.add_fault("job-1", *METADATA_CALLS, error=number)
    refused = await service.download("job-1")
    assert (refused.status, refused.code) == (503, "storage-unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert (await service.get("/api/jobs/job-1")).status == 200


def shorten(path: Path) -> bytes:
    os.truncate(path, MIDDLE)
    return path.read_bytes()


def overwrite(path: Path) -> bytes:
    with path.open("r+b") as file:
        file.write(OTHER)
    return path.read_bytes()


def grow(path: Path) -> bytes:
    with path.open("ab") as file:
        file.write(b"more")
    return path.read_bytes()


@pytest.mark.parametrize("harm", [shorten, overwrite, grow])
async def test_file_written_in_place_breaks_the_download_and_its_old_tag_gets_the_whole_new_file(
    output: Path, storage: FaultyStorage, serve: Serve, harm: Callable[[Path], bytes]
) -> None:
    """The bytes before the break may be of both versions, so a client has to resume by the tag."""
    service = await serve()
    storage.add_fault(f"job-1/{OUTPUT}", "read", seconds=FOREVER_S, from_offset=MIDDLE)
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(service.connect())
        link.send(request("GET", download_path("job-1"), token=service.token))
        _, _, headers = await link.head()
        first = await link.read(100_000)
        left = harm(output)
        storage.clear_faults()
        second = await read_rest(link)
        assert len(first + second) < len(FILM)
    assert await outcome(service) == "truncated"
    again = await resume_download(service, Answer("1.1", 200, headers, first + second))
    assert (again.status, again.body) == (200, left)
    assert again.headers["ETag"] != headers["ETag"]


async def test_old_tag_of_a_replaced_file_gets_the_whole_new_file(output: Path, serve: Serve) -> None:
    service = await serve()
    old = await service.download("job-1", ("Range", "bytes=0-99"))
    put(output, OTHER)
    again = await resume_download(service, old)
    assert (again.status, again.body) == (200, OTHER)


async def test_dead_mount_breaks_downloads_and_is_not_logged_as_a_disconnect(
    output: Path, storage: FaultyStorage, serve: Serve
) -> None:
    service = await serve()
    await warm_up(service, "job-1")
    storage.add_fault(f"job-1/{OUTPUT}", "read", seconds=FOREVER_S, from_offset=MIDDLE)
    async with AsyncExitStack() as stack:
        links = [await start_download(service, stack, "job-1") for _ in range(3)]
        await asyncio.gather(*(link.read(100_000) for link in links))
        storage.kill()
        for link in links:
            assert len(await read_rest(link)) < len(FILM) - 100_000
    assert {line["outcome"] for line in await service.wait_for_downloads(3)} == {"storage-error"}
    assert (await service.download("job-1")).status == 503
    stale = await service.get("/api/jobs/job-1", ("Cache-Control", "no-cache"))
    assert (stale.status, stale.headers["Cache-Status"][:12]) == (200, "jobsvc; hit;")
    await until(lambda: not open_paths(storage.mountpoint))


@pytest.mark.parametrize("seconds", [15_032_385_535, 9_500_000_000, -1, -2_000_000_000])
async def test_files_with_unusual_timestamps_are_served(output: Path, serve: Serve, seconds: int) -> None:
    """From centuries ahead, and from before the epoch."""
    for path in (output, output.parents[1] / "status.json"):
        os.utime(path, (seconds, seconds))
    service = await serve()
    await warm_up(service, "job-1")
    answer = await service.download("job-1")
    assert (answer.status, answer.body) == (200, FILM)
    again = await service.download("job-1", ("Range", "bytes=5-"), ("If-Range", answer.headers["ETag"]))
    assert (again.status, again.body) == (206, FILM[5:])
