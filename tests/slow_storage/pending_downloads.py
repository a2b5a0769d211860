"""Downloads that a test starts and does not finish at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import pytest

from jobsvc.storage.sendfile import socket_queues
from tests.clients.raw_http import RESPONSE_TIMEOUT_S, Connection, request
from tests.programs.service_runner import Service

FILM: Final = bytes(range(256)) * 4096
OUTPUT: Final = "output/film.mp4"


def download_path(job_id: str) -> str:
    return f"/api/jobs/{job_id}/download"


async def warm_up(service: Service, *job_ids: str) -> None:
    """Have the service read these jobs, as after it has run for a while."""
    for job_id in job_ids:
        assert (await service.get(f"/api/jobs/{job_id}")).status == 200


async def start_download(service: Service, stack: AsyncExitStack, job_id: str) -> Connection:
    """Request an output over a connection of its own, and read the head of the response."""
    link = await stack.enter_async_context(service.connect())
    link.send(request("GET", download_path(job_id), token=service.token))
    version, status, _ = await link.head()
    assert (version, status) == ("1.1", 200)
    return link


async def read_rest(link: Connection) -> bytes:
    """Read until all of FILM has arrived, or the service closes the connection."""
    async with asyncio.timeout(RESPONSE_TIMEOUT_S):
        data = await link.read(len(FILM))
        assert len(data) == len(FILM) or await link.ended()
    return data


async def wait_for_answer(get: Callable[[], Awaitable[object]], expected: object) -> None:
    """Repeat a request until its result is the expected one."""
    async with asyncio.timeout(RESPONSE_TIMEOUT_S):
        while True:
            if await get() == expected:
                break
            await asyncio.sleep(0.02)


@pytest.fixture(params=["by pages", "by copies"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways of sending."""
    if request.param == "by pages":
        monkeypatch.setattr(socket_queues, "max_buffered_bytes", lambda: 0)
