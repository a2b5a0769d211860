"""Tests that only test_blocking_calls.py runs: those named `bad` block the event loop and must fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.root_listing import find_job_directories


def stats() -> None:
    os.stat("/")  # noqa: PTH116 - the call itself is meant, as are those below


def opens() -> None:
    os.close(os.open("/", os.O_RDONLY))


def opens_by_builtin() -> None:
    open(__file__, "rb").close()  # noqa: PTH123


def lists() -> None:
    os.scandir("/").close()


def reads() -> None:
    with socket.socket() as some:
        os.pread(some.fileno(), 1, 0)


def fstats() -> None:
    with socket.socket() as some:
        os.fstat(some.fileno())


def sends() -> None:
    with socket.socket() as some:
        os.sendfile(some.fileno(), some.fileno(), 0, 1)


CALLS = (stats, opens, opens_by_builtin, lists, reads, fstats, sends)


async def ask(aiohttp_client: AiohttpClient, call: Callable[[], object]) -> int:
    async def handler(request: web.Request) -> web.Response:
        call()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    client = await aiohttp_client(app)
    async with client.get("/") as answer:
        return answer.status


@pytest.mark.parametrize("call", CALLS)
async def test_bad_handler(aiohttp_client: AiohttpClient, call: Callable[[], None]) -> None:
    assert await ask(aiohttp_client, call) == 500


@pytest.mark.parametrize("call", CALLS)
async def test_bad_and_swallowed(aiohttp_client: AiohttpClient, call: Callable[[], None]) -> None:
    def swallow() -> None:
        with contextlib.suppress(Exception):
            call()

    assert await ask(aiohttp_client, swallow) == 200


async def test_bad_callback(tmp_path: Path) -> None:
    asyncio.get_running_loop().call_soon(find_job_directories, tmp_path)
    for _ in range(2):
        await asyncio.sleep(0)


async def test_good_thread(tmp_path: Path) -> None:
    disk = StorageExecutor()
    await disk.run_metadata("a", lambda: find_job_directories(tmp_path))
    for call in (stats, opens, opens_by_builtin, lists, fstats):
        await disk.run_metadata("a", call)
    disk.close()


async def test_good_by_the_test_itself(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    find_job_directories(tmp_path)
    stats()


def test_good_without_a_loop(tmp_path: Path) -> None:
    find_job_directories(tmp_path)
    opens()
