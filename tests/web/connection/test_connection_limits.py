from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack

import pytest

from jobsvc.web.connection import connection_limits
from jobsvc.web.connection.connection_limits import RESERVED
from tests.clients.raw_http import Connection, IncompleteAnswer, request
from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service

pytestmark = pytest.mark.both_loops

DOWNLOAD = "/api/jobs/film/download"
STATUS = "/api/jobs/job-1"
HALF_A_HEAD = b"GET /api/jobs/job-1 HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
async def full(serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Return a service of four connections; none is taken for one that is slow to send its first byte."""
    monkeypatch.setattr(connection_limits, "NEWCOMER_GRACE_S", 3600.0)
    monkeypatch.setattr(connection_limits, "SEARCH_SHARE", 1000.0)
    make_job("job-1")
    os.truncate(make_job("film", output=b"") / "output/film.mp4", 1 << 30)
    return await serve(max_connections=4)


async def busy(service: Service, stack: AsyncExitStack, count: int) -> list[Connection]:
    """Open connections that each hold a download."""
    links = [await stack.enter_async_context(service.connect(receive_buffer=4096)) for _ in range(count)]
    for link in links:
        link.send(request("GET", DOWNLOAD, token=service.token))
        assert (await link.head())[1] == 200
    return links


async def test_connection_above_the_limit_is_refused_with_503_and_closed(full: Service) -> None:
    async with AsyncExitStack() as stack:
        await busy(full, stack, 4)
        for _ in range(2 * RESERVED):
            async with full.connect() as link:
                answer = await link.ask("GET", STATUS, token=full.token)
                assert (answer.status, answer.code) == (503, "too-many-connections")
                assert (answer.headers["Connection"], answer.headers["Retry-After"]) == ("close", "1")
                assert await link.ended()
        assert await full.metric("jobsvc_connections_refused_total") >= 2 * RESERVED


async def test_refusal_above_the_limit_does_not_reveal_whether_a_token_is_valid(full: Service) -> None:
    async with AsyncExitStack() as stack:
        await busy(full, stack, 4)
        details = {
            ((answer := await full.get(STATUS, token=token)).status, answer.json()["detail"])
            for token in (full.token, "jsvc_" + "x" * 43, None)
        }
        assert len(details) == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probe_is_answered_when_all_connections_are_in_use(full: Service, path: str) -> None:
    async with AsyncExitStack() as stack:
        await busy(full, stack, 4)
        for _ in range(3 * RESERVED):  # they send nothing and occupy the reserve
            await stack.enter_async_context(full.connect())
        answer = await full.get(path, token=None)
        assert (answer.status, answer.headers["Connection"]) == (200, "close")


async def test_longest_idle_connection_is_closed_first(full: Service) -> None:
    async with AsyncExitStack() as stack:
        links = [await stack.enter_async_context(full.connect()) for _ in range(4)]
        for link in [*links, links[0]]:
            assert (await link.ask("GET", STATUS, token=full.token)).status == 200
            await asyncio.sleep(0.01)  # uvloop's clock counts milliseconds
        newest = await stack.enter_async_context(full.connect())
        assert (await newest.ask("GET", STATUS, token=full.token)).status == 200
        assert await links[1].ended()
        for link in (links[0], links[2], links[3], newest):
            assert (await link.ask("GET", STATUS, token=full.token)).status == 200


async def test_new_connection_is_closed_after_idle_connections_that_were_used(full: Service) -> None:
    async with AsyncExitStack() as stack:

        async def connect() -> Connection:
            await asyncio.sleep(0.05)  # a search for idle connections is due again
            return await stack.enter_async_context(full.connect())

        for _ in range(7):
            assert (await (await connect()).ask("GET", STATUS, token=None)).status == 401
        new = await connect()
        for _ in range(3):
            assert (await (await connect()).ask("GET", STATUS, token=None)).status == 401
        assert (await new.ask("GET", STATUS, token=full.token)).status == 200


@pytest.mark.parametrize("beginning", [b"", HALF_A_HEAD], ids=["nothing", "half a head"])
async def test_connection_without_a_request_is_closed_first(
    full: Service, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr(connection_limits, "NEWCOMER_GRACE_S", 0.3)
    async with AsyncExitStack() as stack:
        used = [await stack.enter_async_context(full.connect()) for _ in range(2)]
        silent = [await stack.enter_async_context(full.connect()) for _ in range(2)]
        for link in silent:
            link.send(beginning)
        await asyncio.sleep(0.5)
        for link in used:
            assert (await link.ask("GET", STATUS, token=full.token)).status == 200
        for link in silent:
            used.append(await stack.enter_async_context(full.connect()))
            assert (await used[-1].ask("GET", STATUS, token=full.token)).status == 200
            assert await link.ended()
        for link in used:
            assert (await link.ask("GET", STATUS, token=full.token)).status == 200


async def test_connections_with_unfinished_heads_are_closed_before_used_ones(full: Service) -> None:
    async with AsyncExitStack() as stack:
        used = await stack.enter_async_context(full.connect())
        assert (await used.ask("GET", STATUS, token=full.token)).status == 200
        for _ in range(20):
            link = await stack.enter_async_context(full.connect())
            link.send(HALF_A_HEAD)
            deadline = time.monotonic() + 15
            while (status := (await full.get(STATUS)).status) == 503 and time.monotonic() < deadline:
                await pause()  # until the half head has arrived, the connection counts as a new one
            assert status == 200
        assert (await used.ask("GET", STATUS, token=full.token)).status == 200


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_connections_whose_body_does_not_arrive_are_closed(full: Service, framing: str) -> None:
    async with AsyncExitStack() as stack:
        used = await stack.enter_async_context(full.connect())
        assert (await used.ask("GET", STATUS, token=full.token)).status == 200
        for _ in range(6):
            link = await stack.enter_async_context(full.connect())
            link.send(f"POST /nothing HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
            assert (await link.answer()).status == 404
            await asyncio.sleep(0.05)
        assert (await used.ask("GET", STATUS, token=full.token)).status == 200
        assert (await full.get(STATUS)).status == 200


async def test_idle_connections_are_closed_after_those_found_before_are_gone(full: Service) -> None:
    for _ in range(2):
        async with AsyncExitStack() as stack:
            for _ in range(5):
                link = await stack.enter_async_context(full.connect())
                assert (await link.ask("GET", STATUS, token=full.token)).status == 200
                await asyncio.sleep(0.05)  # a search for idle connections is due again


async def test_connections_are_accepted_again_once_others_have_closed(full: Service) -> None:
    async with AsyncExitStack() as stack:
        links = await busy(full, stack, 4)
        assert (await full.get(STATUS)).status == 503
        await links[0].reset()
        answer = await full.get(STATUS)
        for _ in range(500):
            if answer.status == 200:
                break
            await asyncio.sleep(0.01)
            answer = await full.get(STATUS)
        assert answer.status == 200


async def test_pipelined_requests_above_the_limit_get_one_response(full: Service) -> None:
    async with AsyncExitStack() as stack:
        await busy(full, stack, 4)
        link = await stack.enter_async_context(full.connect())
        link.send(request("GET", "/healthz") + request("GET", STATUS, token=full.token))
        assert (await link.answer()).status == 200
        with pytest.raises(IncompleteAnswer):
            await link.answer()
