from __future__ import annotations

import asyncio
import socket
import time

import pytest

from jobsvc.web.connection import timeouts
from jobsvc.web.connection.connection import Connection as ServerConnection
from tests.clients.raw_http import Connection, request
from tests.conftest import MakeJob, Serve
from tests.eventually import pause

pytestmark = pytest.mark.both_loops

HALF_A_HEAD = b"GET /api/jobs/job-1 HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(autouse=True)
def quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "SWEEP_INTERVAL_S", 0.05)


def closed(reason: str) -> str:
    return f'jobsvc_connections_closed_total{{reason="{reason}"}}'


async def expect_408(link: Connection) -> None:
    answer = await link.answer()
    assert (answer.status, answer.code, answer.headers["Connection"]) == (408, "request-timeout", "close")
    assert await link.ended()


async def test_unfinished_request_head_is_answered_408_after_the_header_timeout(serve: Serve) -> None:
    service = await serve(header_timeout=1)
    async with service.connect() as link:
        started_at = time.monotonic()
        link.send(HALF_A_HEAD)
        await expect_408(link)
        assert time.monotonic() - started_at >= 1
    assert await service.metric(closed("header-timeout")) == 1


async def test_head_sent_byte_by_byte_times_out(serve: Serve) -> None:
    service = await serve(header_timeout=1)
    async with service.connect() as link:

        async def drip() -> None:
            for byte in HALF_A_HEAD * 100:
                link.send(bytes([byte]))
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        try:
            await expect_408(link)
        finally:
            dripping.cancel()


async def test_unfinished_head_after_an_answered_request_times_out(serve: Serve, make_job: MakeJob) -> None:
    make_job("job-1")
    service = await serve(header_timeout=1)
    async with service.connect() as link:
        assert (await link.ask("GET", "/api/jobs/job-1", token=service.token)).status == 200
        link.send(request("GET", "/api/jobs/job-1", token=service.token) + HALF_A_HEAD)
        assert (await link.answer()).status == 200
        await expect_408(link)


async def test_empty_line_after_a_body_does_not_start_the_header_timeout(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job("job-1", output=b"film")
    service = await serve(header_timeout=1)
    async with service.connect() as link:
        for target in ("/api/jobs/job-1/download-links", "/api/jobs/job-1/nothing"):
            link.send(request("POST", target, token=service.token, body=b"{}") + b"\r\n")
            assert (await link.answer()).status in {201, 404}
            await asyncio.sleep(1.5)
        assert (await link.ask("GET", "/api/jobs/job-1", token=service.token)).status == 200
        link.send(b"\r\n" + HALF_A_HEAD)
        await expect_408(link)


async def test_connection_without_a_byte_is_closed_after_the_header_timeout(serve: Serve) -> None:
    service = await serve(header_timeout=1)
    async with service.connect() as link:
        assert await link.ended()
    assert await service.metric(closed("header-timeout")) == 1


async def test_head_completed_in_time_is_answered(serve: Serve, make_job: MakeJob) -> None:
    make_job("job-1")
    service = await serve(header_timeout=3)
    async with service.connect() as link:
        for _ in range(3):
            head = request("GET", "/api/jobs/job-1", token=service.token)
            link.send(head[:40])
            await asyncio.sleep(1.1)
            link.send(head[40:])
            assert (await link.answer()).status == 200


async def test_idle_connection_is_closed_after_the_keepalive_timeout(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timeouts.KEEPALIVE_TIMEOUT_S == 75
    monkeypatch.setattr(timeouts, "KEEPALIVE_TIMEOUT_S", 3.5)
    make_job("job-1")
    service = await serve(header_timeout=1)
    async with service.connect() as link:
        for _ in range(2):
            assert (await link.ask("GET", "/api/jobs/job-1", token=service.token)).status == 200
            await asyncio.sleep(1.2)
        assert await link.ended()
    assert await service.metric(closed("idle-timeout")) == 1


async def test_body_that_stalls_is_answered_408(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobsvc.web.outputs.link_request.BODY_TIMEOUT_S", 0.5)
    make_job("job-1", output=b"film")
    service = await serve()
    async with service.connect() as link:
        link.send(request("POST", "/api/jobs/job-1/download-links", token=service.token, body=b"{}")[:-1])
        answer = await link.answer()
        assert (answer.status, answer.code) == (408, "request-timeout")


UNREAD = {
    "a list": ("/api/jobs", 1),
    "jobs": ("/api/jobs/large", 16),
    "tails": ("/api/jobs/large/logs?tail=10000", 8),
    "a log": ("/api/jobs/large/logs", 1),
    "problems": ("/api/jobs/missing", 1000),
}
SEND_BUFFER_BYTES = 4096


@pytest.fixture
def small_send_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit the kernel's send buffer, which otherwise grows to 4 MB.

    That would be 20,000 small responses before the service has to hold one.
    """
    take = ServerConnection.connection_made

    def connection_made(connection: ServerConnection, transport: asyncio.BaseTransport) -> None:
        accepted = transport.get_extra_info("socket")
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        take(connection, transport)

    monkeypatch.setattr(ServerConnection, "connection_made", connection_made)


@pytest.mark.usefixtures("small_send_buffers")
@pytest.mark.parametrize(("target", "times"), UNREAD.values(), ids=UNREAD)
async def test_client_that_never_reads_is_disconnected_after_the_send_timeout(
    serve: Serve, make_job: MakeJob, target: str, times: int
) -> None:
    make_job("large", metadata={"x": "y" * 900_000}, log=b"0123456789abcde\n" * 500_000)
    for number in range(10):
        make_job(f"job-{number}", metadata={"x": "y" * 900_000})
    service = await serve(send_timeout=1)
    while (await service.get("/readyz")).status != 200:
        await pause()
    before = await service.metric("jobsvc_connections")
    async with service.connect(receive_buffer=4096) as link:
        link.writer.transport.pause_reading()  # type: ignore[attr-defined]
        link.send(request("GET", target, token=service.token) * times)
        deadline = time.monotonic() + 20
        while await service.metric("jobsvc_connections") > before:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_client_that_reads_slowly_gets_the_whole_response(serve: Serve, make_job: MakeJob) -> None:
    make_job("large", metadata={"x": "y" * 900_000})
    service = await serve(send_timeout=2.5)
    while (await service.get("/api/jobs/large")).status != 200:  # a process that starts slowly reads it
        await pause()
    async with service.connect(receive_buffer=4096) as link:
        link.send(request("GET", "/api/jobs/large", token=service.token) * 8)
        for _ in range(8):
            _, status, headers = await link.head()
            left = int(headers["Content-Length"])
            for _ in range(8):
                left -= len(await link.read(min(left, 120_000)))
                await asyncio.sleep(0.06)
            assert (status, left) == (200, 0)
    assert await service.metric(closed("send-timeout")) == 0
