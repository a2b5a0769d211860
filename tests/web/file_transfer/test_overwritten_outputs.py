"""An output that is overwritten in place is never sent as a complete response with wrong bytes."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Final

import pytest

from jobsvc.storage.sendfile.socket_buffers import max_buffered_bytes
from tests.conftest import MakeJob, Serve
from tests.raw_http import Connection, request
from tests.service_runner import Service

SIZE: Final = max_buffered_bytes() + (8 << 20)
"""Bytes; more than the buffers between service and client can hold."""
TARGET: Final = "/api/jobs/job-1/download"

pytestmark = pytest.mark.both_loops


@pytest.fixture
def old() -> bytes:
    return random.Random(7).randbytes(SIZE)  # noqa: S311 - only bytes that differ


@pytest.fixture
def film(make_job: MakeJob, old: bytes) -> Path:
    return make_job(output=old) / "output" / "film.mp4"


async def start_download(service: Service, link: Connection) -> None:
    """Start the download, read only its head, and let the buffers fill up."""
    link.send(request("GET", TARGET, token=service.token))
    _, answered, _ = await link.head()
    assert answered == 200
    await asyncio.sleep(0.2)


@pytest.mark.usefixtures("film")
async def test_client_that_continues_to_read_gets_the_whole_file(serve: Serve, old: bytes) -> None:
    service = await serve()
    async with service.connect() as link:
        await start_download(service, link)
        assert await link.read(SIZE) == old
        assert (await link.ask("GET", "/healthz")).status == 200
    [line] = await service.wait_for_downloads(1)
    assert (line["outcome"], line["bytesSent"]) == ("complete", SIZE)


async def test_overwrite_before_the_client_has_read_breaks_the_connection(serve: Serve, film: Path) -> None:
    service = await serve()
    async with service.connect() as link:
        await start_download(service, link)
        with film.open("r+b") as file:
            file.write(bytes(SIZE))
        assert len(await link.read(SIZE)) < SIZE
        assert await link.ended()
    [line] = await service.wait_for_downloads(1)
    assert line["outcome"] == "truncated"


@pytest.mark.usefixtures("film")
async def test_client_that_never_reads_is_disconnected(serve: Serve) -> None:
    service = await serve(send_timeout=0.3)
    async with service.connect() as link:
        await start_download(service, link)
        [line] = await service.wait_for_downloads(1)
        assert (line["outcome"], line["bytesSent"] < SIZE) == ("client-gone", True)


@pytest.mark.usefixtures("film")
async def test_client_that_disappears_is_not_waited_for(serve: Serve) -> None:
    service = await serve(send_timeout=3600)
    async with service.connect() as link:
        await start_download(service, link)
        await link.reset()
        [line] = await service.wait_for_downloads(1)
        assert line["outcome"] == "client-gone"
