"""A client on this host has to read all page references before the last bytes are sent."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Final

import pytest

from jobsvc.storage.sendfile import socket_queues
from jobsvc.web.file_transfer.transfer import FileTransfer
from tests.clients.raw_http import RESPONSE_TIMEOUT_S, Connection, request
from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import Service

SIZE: Final = 1_500_000
"""Bytes; fewer than the buffers between service and client hold."""
TARGET: Final = "/api/jobs/job-1/download"

pytestmark = pytest.mark.both_loops


@pytest.fixture
def old() -> bytes:
    return random.Random(7).randbytes(SIZE)  # noqa: S311 - only bytes that differ


@pytest.fixture
def film(make_job: MakeJob, old: bytes) -> Path:
    return make_job(output=old) / "output" / "film.mp4"


@pytest.fixture
def waiting_for_peer(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Limit how many unread bytes a client may have; set once the service waits for it."""
    waiting, wait_peer_read = asyncio.Event(), FileTransfer._wait_peer_read

    async def record_wait(stream: FileTransfer) -> None:
        waiting.set()
        await wait_peer_read(stream)

    monkeypatch.setattr(socket_queues, "MAX_BUFFERED_LOCAL_BYTES", 200_000)
    monkeypatch.setattr(FileTransfer, "_wait_peer_read", record_wait)
    return waiting


async def start_download(service: Service, link: Connection, waiting_for_peer: asyncio.Event) -> None:
    """Start the download, and read only its head until the service waits for the client."""
    link.send(request("GET", TARGET, token=service.token))
    _, status, _ = await link.head()
    assert status == 200
    async with asyncio.timeout(RESPONSE_TIMEOUT_S):
        await waiting_for_peer.wait()


@pytest.mark.usefixtures("film")
async def test_client_that_continues_to_read_gets_the_whole_file(
    serve: Serve, old: bytes, waiting_for_peer: asyncio.Event
) -> None:
    service = await serve()
    async with service.connect() as link:
        await start_download(service, link, waiting_for_peer)
        assert await link.read(SIZE) == old
        assert (await link.ask("GET", "/healthz")).status == 200
    [line] = await service.wait_for_downloads(1)
    assert (line["outcome"], line["bytesSent"]) == ("complete", SIZE)


async def test_overwrite_before_the_client_has_read_breaks_the_connection(
    serve: Serve, film: Path, waiting_for_peer: asyncio.Event
) -> None:
    service = await serve()
    async with service.connect() as link:
        await start_download(service, link, waiting_for_peer)
        with film.open("r+b") as file:
            file.write(bytes(SIZE))
        assert len(await link.read(SIZE)) < SIZE
        assert await link.ended()
    [line] = await service.wait_for_downloads(1)
    assert line["outcome"] == "truncated"


@pytest.mark.usefixtures("film")
async def test_client_that_never_reads_is_disconnected(serve: Serve, waiting_for_peer: asyncio.Event) -> None:
    service = await serve(send_timeout=2)
    async with service.connect() as link:
        await start_download(service, link, waiting_for_peer)
        [line] = await service.wait_for_downloads(1)
        assert (line["outcome"], line["bytesSent"] < SIZE) == ("client-gone", True)


@pytest.mark.usefixtures("film")
async def test_client_that_disappears_is_not_waited_for(
    serve: Serve, waiting_for_peer: asyncio.Event
) -> None:
    service = await serve(send_timeout=3600)
    async with service.connect() as link:
        await start_download(service, link, waiting_for_peer)
        await link.reset()
        [line] = await service.wait_for_downloads(1)
        assert line["outcome"] == "client-gone"
