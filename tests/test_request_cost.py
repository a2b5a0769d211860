"""What one request may cost: memory, time of the event loop, and bytes that are read for nothing."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
import zlib
from collections.abc import Iterator
from typing import Final

import pytest

from tests.checks.loop_time import longest_step
from tests.clients.raw_http import RESPONSE_TIMEOUT_S, Connection, request
from tests.conftest import MakeJob, Serve
from tests.programs.proxies import installed, proxy
from tests.programs.service_runner import Process, Service
from tests.programs.shared_service import shared_service

LINKS: Final = "/api/jobs/job-1/download-links"
MAX_STEP_S: Final = 0.02
FILM: Final = b"film" * 1000
MIB: Final = 1 << 20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with shared_service(tmp_path_factory.mktemp("standing"), {"job-1": FILM}) as process:
        yield process


@pytest.fixture
async def on_loop(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=FILM)
    return await serve(trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),))


async def refused(service: Service, data: bytes) -> tuple[int, str]:
    """Send a request that is refused while the client still sends; return status and code."""
    async with service.connect() as link:
        link.send(data)
        answer = await link.answer()
        assert answer.headers["Connection"] == "close"
        assert await link.ended()
    return answer.status, answer.code


# Compressed bodies.


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "a"])
async def test_compressed_body_is_refused(service: Service, coding: str) -> None:
    fields = [("Content-Encoding", coding)]
    answer = await service.ask("POST", LINKS, fields, body=gzip.compress(b"{}"))
    assert (answer.status, answer.code) == (415, "unsupported-media-type")
    assert answer.headers["Accept-Encoding"] == "identity"


async def test_compressed_body_is_refused_if_chunked_or_with_a_repeated_field(
    service: Service,
) -> None:
    fields = [
        ("Content-Encoding", "identity"),
        ("Content-Encoding", "gzip"),
        ("Transfer-Encoding", "chunked"),
    ]
    async with service.connect() as link:
        link.send(request("POST", LINKS, fields, token=service.token) + b"2\r\n{}\r\n0\r\n\r\n")
        assert (await link.answer()).status == 415
        assert (await link.ask("GET", "/healthz")).status == 200


async def test_body_without_a_coding_is_read(service: Service) -> None:
    answer = await service.ask("POST", LINKS, [("Content-Encoding", "identity")], body=b'{"expiresIn": 60}')
    assert answer.status == 201


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    ("target", "authorized", "status"),
    [(LINKS, True, 415), (LINKS, False, 401), ("/nowhere", False, 404), ("/healthz", False, 405)],
)
async def test_compressed_body_is_never_decompressed(
    service: Process, coding: str, target: str, status: int, *, authorized: bool
) -> None:
    zeros = bytes(100 * MIB)
    bomb = gzip.compress(zeros, 1) if coding == "gzip" else zlib.compress(zeros, 1)
    before = service.memory("VmHWM")
    token = service.token if authorized else None
    for _ in range(3):
        answer = await service.ask("POST", target, [("Content-Encoding", coding)], token=token, body=bomb)
        assert answer.status == status
    assert service.memory("VmHWM") - before < 20 * MIB


@pytest.mark.skipif(not installed("nginx"), reason="not installed: nginx")
async def test_compressed_body_through_nginx_is_never_decompressed(
    service: Process, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bomb, before = gzip.compress(bytes(100 * MIB), 1), service.memory("VmHWM")
    async with proxy("nginx", tmp_path_factory.mktemp("nginx"), service.port) as port:
        link = await Connection.open(port)
        answer = await link.ask("POST", "/api/x", [("Content-Encoding", "gzip")], body=bomb)
        await link.close()
    assert answer.status == 404
    assert service.memory("VmHWM") - before < 20 * MIB


async def test_client_that_keeps_sending_receives_the_whole_response(
    service: Service,
) -> None:
    last = request("GET", "/api/openapi.json", [("Connection", "close")])
    async with service.connect() as link:
        link.send(last + last * 100)
        answer = await link.answer()
        link.send(last)
        assert answer.headers["Connection"] == "close"
        assert await link.ended()


# Unread bodies.


async def test_large_unread_body_closes_the_connection_and_uses_no_memory(
    service: Process,
) -> None:
    size, before = 64 * MIB, service.memory("VmHWM")
    async with service.connect() as link:
        link.send(request("POST", "/nowhere", [("Content-Length", str(size))]) + bytes(8 * MIB))
        answer = await link.answer()
        assert (answer.status, answer.headers["Connection"]) == (404, "close")
        assert await link.ended()
    assert service.memory("VmHWM") - before < 20 * MIB


async def test_large_unread_chunked_body_closes_the_connection(service: Process) -> None:
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    async with service.connect() as link:
        link.send(request("POST", "/nowhere", [("Transfer-Encoding", "chunked")]) + chunk * 64)
        assert (await link.answer()).status == 404
        assert await link.ended()


@pytest.mark.parametrize("target", ["/nowhere", LINKS])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"1\r\nx\r\n" * 100_000, id="of one byte"),
        pytest.param(b"7ffc\r\n" + b"\r\n\r\n" * 0x1FFF + b"\r\n", id="of what looks like ends of heads"),
        pytest.param((b"1;" + b"a=b;" * 1000 + b"a\r\nx\r\n") * 50, id="of extensions"),
        pytest.param(b"0\r\n" + b"a: b\r\n" * 50_000, id="of trailers"),
    ],
)
async def test_no_chunks_block_the_loop(on_loop: Service, target: str, body: bytes) -> None:
    head = request("POST", target, [("Transfer-Encoding", "chunked")], token=on_loop.token)
    assert await step_of(on_loop, head + body + b"0\r\n\r\n") < MAX_STEP_S


async def step_of(service: Service, data: bytes) -> float:
    """Send data from a thread, read the response, and return the longest step of the loop meanwhile."""
    with longest_step() as longest:
        await asyncio.to_thread(_exchange, service.port, data)
        assert (await service.get("/healthz", token=None)).status == 200
    return longest.seconds


def _exchange(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), RESPONSE_TIMEOUT_S) as plain:
        sending = memoryview(data)
        try:
            plain.sendall(sending)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(1 << 16):
                pass
        except ConnectionError:
            pass


# Heads.


def head_of(size: int, line: str = "GET /healthz") -> bytes:
    """Build a head of this many bytes whose fields are within their limits."""
    head = f"{line} HTTP/1.1\r\nHost: a\r\n".encode()
    number = 0
    while (left := size - len(head) - 2) > 7000:
        head += b"X-%02d: %b\r\n" % (number, b"a" * 6000)
        number += 1
    return head + b"X: " + b"a" * (left - 5) + b"\r\n\r\n"


async def test_head_of_32_kib_is_accepted(service: Service) -> None:
    head = head_of(32 * 1024)
    assert len(head) == 32 * 1024
    for pieces in ([head], [head[:20_000], head[20_000:]], [head[:-2], head[-2:] + head]):
        async with service.connect() as link:
            for piece in pieces:
                link.send(piece)
                await service.get("/healthz", token=None)
            assert (await link.answer()).status == 200


@pytest.mark.parametrize("size", [32 * 1024 + 1, 40_000, 200_000])
@pytest.mark.parametrize("ends", [True, False])
async def test_larger_head_is_refused(service: Service, size: int, *, ends: bool) -> None:
    head = head_of(size) if ends else head_of(size)[:-2] + b"X: y\r\n"
    assert await refused(service, head) == (431, "request-header-fields-too-large")


async def test_head_after_another_request_is_limited_too(service: Service) -> None:
    body = [("Transfer-Encoding", "chunked")]
    before = request("POST", "/healthz", body) + b"3\r\nabc\r\n0\r\n\r\n"
    async with service.connect() as link:
        link.send(before + head_of(32 * 1024) + before + head_of(32 * 1024 + 1))
        assert [(await link.answer()).status for _ in range(4)] == [405, 200, 405, 431]
        assert await link.ended()


async def test_endless_empty_lines_are_refused(service: Service) -> None:
    async with service.connect() as link:
        link.send(b"\r\n" * 20_000)
        assert (await link.answer()).status in {414, 431}
        assert await link.ended()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET /" + "a" * 9_000, (414, "uri-too-long")),
        ("GET /" + "a" * 60_000, (414, "uri-too-long")),
        ("GET /?" + "a=b&" * 9_000, (414, "uri-too-long")),
        ("GET http://a/" + "a" * 9_000, (414, "uri-too-long")),
    ],
)
@pytest.mark.parametrize("cut", [0, 5, 8_195])
async def test_too_long_target_has_its_own_status(
    service: Service, line: str, expected: tuple[int, str], cut: int
) -> None:
    head = f"{line} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    async with service.connect() as link:
        link.send(head[:cut])
        await service.get("/healthz", token=None)
        link.send(head[cut:])
        answer = await link.answer()
        assert (answer.status, answer.code) == expected
        assert await link.ended()


@pytest.mark.parametrize(
    "fields", [b"X: " + b"a" * 9_000, b"X" * 9_000 + b": a", b"\r\n".join([b"X: y"] * 140)]
)
@pytest.mark.parametrize("cut", [3, 30, 8_200])
async def test_too_large_fields_have_their_own_status(service: Service, fields: bytes, cut: int) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n"
    async with service.connect() as link:
        link.send(head[:cut])
        await service.get("/healthz", token=None)
        link.send(head[cut:])
        answer = await link.answer()
        assert (answer.status, answer.code) == (431, "request-header-fields-too-large")
        assert await link.ended()


# Requests after an unread response.


@pytest.mark.parametrize("size", [40, 1_000, 32 * 1024])
async def test_requests_after_an_unread_response_are_not_read_without_limit(
    tmp_path_factory: pytest.TempPathFactory, size: int
) -> None:
    with shared_service(tmp_path_factory.mktemp("standing"), {"large": bytes(16 * MIB)}) as service:
        async with service.connect(receive_buffer=4096) as link:
            link.send(request("GET", "/api/jobs/large/download", token=service.token))
            await link.head()
            before = service.memory("VmHWM")
            link.writer.transport.pause_reading()  # type: ignore[attr-defined]
            link.send(head_of(size) * (64 * MIB // size))
            for _ in range(100):
                await service.get("/healthz", token=None)
            waits = link.writer.transport.get_write_buffer_size()
            assert waits > 32 * MIB
            assert service.memory("VmHWM") - before < 8 * MIB
            await link.reset()


@pytest.mark.both_loops
@pytest.mark.parametrize("size", [45, 3_000, 30_000])
async def test_queued_requests_are_all_answered(on_loop: Service, size: int) -> None:
    count = 400_000 // size
    async with on_loop.connect() as link:
        link.send(head_of(size) * count)
        link.writer.write_eof()
        for _ in range(count):
            assert (await link.answer()).status == 200
        assert await link.ended()


# Fields and targets that take long to parse.

TAGS: Final = ",".join(['"abc"'] * 1_300)
HEADS: Final = {
    "If-Match": [("If-Match", TAGS)] * 3,
    "If-None-Match": [("If-None-Match", TAGS)] * 3,
    "If-None-Match without tags": [("If-None-Match", ", " * 4_000)] * 3,
    "Range": [("Range", "bytes=" + ",".join(["0-0"] * 2_000))],
    "Want-Repr-Digest": [("Want-Repr-Digest", ",".join(["sha-256=1"] * 800))] * 3,
    "X-Forwarded-For": [("X-Forwarded-For", ",".join(["127.0.0.1"] * 800))] * 3,
    "Cookie": [("Cookie", ";".join(["a=b"] * 2_000))] * 3,
    "Last-Event-ID": [("Last-Event-ID", "a-1:" * 2_000), ("Connection", "close")],
    "If-Modified-Since": [("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT," * 260)],
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("target", ["/api/jobs/job-1", "/api/jobs/job-1/download", "/api/jobs"])
@pytest.mark.parametrize("authorized", [True, False])
async def test_no_field_blocks_the_loop(
    on_loop: Service, name: str, target: str, *, authorized: bool
) -> None:
    token = on_loop.token if authorized else "jsvc_" + "x" * 43
    assert await step_of(on_loop, request("GET", target, HEADS[name], token=token)) < MAX_STEP_S


@pytest.mark.parametrize(
    "target",
    [
        "/" * 8_000,
        "/api/" + "/" * 8_000,
        "/api" + "/a" * 4_000,
        "/api/" + "%2F" * 2_600,
        "/api/jobs/" + "%41" * 2_600,
        "/api/jobs/" + "../" * 2_600,
        "/api/jobs?" + "a&" * 4_000,
        "/api/jobs?" + "&".join(["status=queued"] * 580),
        "/api/jobs/job-1?" + "wait=1&" * 1_100,
        "/api/jobs?" + "%41" * 2_600,
        "http://a" + "/" * 8_000,
        "http://" + "a." * 3_900 + "/",
    ],
    ids=lambda target: target[:18],
)
async def test_no_target_blocks_the_loop(on_loop: Service, target: str) -> None:
    assert await step_of(on_loop, request("GET", target, token=on_loop.token)) < MAX_STEP_S


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_target_of_slashes_is_404(service: Service, method: str) -> None:
    async with service.connect() as link:
        answer = await link.ask(method, "/api/" + "/" * 8_000)
        assert (answer.status, answer.code) == (404, "not-found")
        assert (await link.ask("GET", "/healthz")).status == 200
