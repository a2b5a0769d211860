"""CONNECT and Upgrade: bytes after such a request are never processed as requests without validation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.raw_http import RESPONSE_TIMEOUT_S, Answer, Connection, IncompleteAnswer, request
from tests.conftest import MakeJob, Serve
from tests.programs.proxies import PROXIES, installed, proxy
from tests.programs.service_runner import Service
from tests.programs.shared_service import shared_service

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
LINKS = "/api/jobs/job-1/download-links"
FILM = b"film" * 100


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with shared_service(tmp_path_factory.mktemp("standing"), {"job-1": FILM, "job-2": "queued"}) as process:
        yield process


@pytest.fixture
async def on_loop(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=FILM)
    return await serve()


async def all_answers(link: Connection) -> list[Answer]:
    """Read responses until the service closes the connection, which has to be after a complete response."""
    found: list[Answer] = []
    async with asyncio.timeout(RESPONSE_TIMEOUT_S):
        while True:
            try:
                found.append(await link.answer())
            except IncompleteAnswer as end:
                if end.answer is not None:
                    raise
                return found


async def exchange(service: Service, *pieces: bytes) -> list[Answer]:
    """Send each piece by itself, and read responses until the service closes the connection."""
    async with service.connect() as link:
        for piece in pieces:
            link.send(piece)
            await service.get("/healthz", token=None)  # the previous piece has been read
        return await all_answers(link)


def connect(target: str = "jobs.example:443", version: str = "1.1", method: str = "CONNECT") -> bytes:
    return f"{method} {target} HTTP/{version}\r\nHost: jobs.example:443\r\n".encode()


LENGTH = b"Content-Length: %d\r\n\r\n" % len(HEALTH)
CHUNK = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(HEALTH), HEALTH)


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        pytest.param([connect() + b"\r\n" + HEALTH], 501, id="requests behind it"),
        pytest.param([connect() + b"\r\n", HEALTH, HEALTH], 501, id="requests later"),
        pytest.param([connect()[:9], connect()[9:] + b"\r", b"\n" + HEALTH], 501, id="in pieces"),
        pytest.param([connect() + LENGTH + HEALTH * 2], 501, id="a body"),
        pytest.param([connect() + LENGTH, HEALTH, HEALTH], 501, id="a body, later"),
        pytest.param([connect() + CHUNK + HEALTH], 501, id="a chunked body"),
        pytest.param([connect("/healthz") + LENGTH + HEALTH * 2], 501, id="origin-form"),
        pytest.param([connect("http://a/healthz") + LENGTH + HEALTH * 2], 400, id="absolute-form"),
        pytest.param([connect(version="1.0") + LENGTH + HEALTH * 2], 501, id="HTTP/1.0"),
        pytest.param([connect(method="connect") + LENGTH + HEALTH * 2], 501, id="lower-case"),
        pytest.param([connect(method="Connect") + LENGTH + HEALTH * 2], 501, id="mixed-case"),
        pytest.param(
            [connect() + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + HEALTH], 501, id="Upgrade"
        ),
        pytest.param([connect() + b"Expect: 100-continue\r\n" + LENGTH + HEALTH], 501, id="Expect"),
    ],
)
async def test_connect_is_refused_and_nothing_after_it_is_a_request(
    on_loop: Service, pieces: list[bytes], status: int
) -> None:
    [answer] = await exchange(on_loop, *pieces)
    assert (answer.status, answer.code, answer.headers["Connection"]) == (status, "bad-request", "close")


async def test_requests_before_connect_are_answered(service: Service) -> None:
    found = await exchange(service, HEALTH * 2 + connect() + b"\r\n" + HEALTH)
    assert [answer.status for answer in found] == [200, 200, 501]


def offer(
    protocol: str,
    *fields: tuple[str, str],
    method: str = "GET",
    target: str = "/healthz",
    version: str = "1.1",
) -> bytes:
    offered = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", protocol), *fields]
    return request(method, target, offered, version=version)


PROTOCOLS = pytest.mark.parametrize("protocol", ["h2c", "websocket", "WebSocket", "TLS/1.0"])


@PROTOCOLS
@pytest.mark.parametrize(
    ("behind", "status"),
    [
        pytest.param(b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n", 505, id="another version"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, id="a bad host"),
        pytest.param(
            b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
            id="a transfer coding",
        ),
        pytest.param(connect() + b"\r\n" + HEALTH, 501, id="CONNECT"),
        pytest.param(b"\x16\x03\x01\r\n\r\n", 400, id="no HTTP"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
async def test_request_after_an_upgrade_is_validated(
    service: Service, protocol: str, behind: bytes, status: int, *, apart: bool
) -> None:
    pieces = [offer(protocol), behind] if apart else [offer(protocol) + behind]
    found = await exchange(service, *pieces)
    assert [answer.status for answer in found] == [200, status]


@PROTOCOLS
@pytest.mark.both_loops
async def test_request_after_an_upgrade_received_in_pieces_is_not_lost(
    on_loop: Service, protocol: str
) -> None:
    whole = offer(protocol)
    for cut in range(1, 5):
        async with on_loop.connect() as link:
            link.send(whole[:-cut])
            await on_loop.get("/healthz", token=None)
            link.send(whole[-cut:] + HEALTH)
            answer = await link.answer()
            if "Connection" in answer.headers:
                assert await link.ended()
            else:
                assert (await link.answer()).status == 200


@PROTOCOLS
@pytest.mark.both_loops
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("late", [False, True])
async def test_body_of_an_upgrade_request_is_read_and_the_connection_closes(
    on_loop: Service, protocol: str, version: str, *, late: bool
) -> None:
    body = b'{"expiresIn": 60}'
    fields = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", protocol),
        ("Content-Length", str(len(body))),
    ]
    head = request("POST", LINKS, fields, token=on_loop.token, version=version)
    pieces = [head, body[:3], body[3:] + HEALTH, HEALTH] if late else [head + body + HEALTH]
    [answer] = await exchange(on_loop, *pieces)
    assert (answer.status, answer.headers.get("Connection", "close")) == (201, "close")


@PROTOCOLS
async def test_chunked_body_of_an_upgrade_request_is_read_and_the_connection_closes(
    service: Service, protocol: str
) -> None:
    fields = [("Connection", "Upgrade"), ("Upgrade", protocol), ("Transfer-Encoding", "chunked")]
    head = request("POST", LINKS, fields, token=service.token)
    [answer] = await exchange(service, head + b"2\r\n{}\r\n0\r\nX: y\r\n\r\n" + HEALTH)
    assert (answer.status, answer.headers["Connection"]) == (201, "close")


async def test_body_of_a_refused_request_is_not_a_request(service: Service) -> None:
    head = b"GET /healthz HTTP/2.0\r\nHost: a\r\n" + LENGTH
    for pieces in ([head + HEALTH * 2], [head, HEALTH, HEALTH]):
        [answer] = await exchange(service, *pieces)
        assert answer.status == 505


@pytest.mark.parametrize("program", PROXIES)
@pytest.mark.parametrize("target", ["/healthz", "jobs.example:443"])
@pytest.mark.parametrize("body", [HEALTH, b"GET /healthz HTTP/1.1\r\nX: "], ids=["a request", "half a head"])
async def test_connect_through_a_proxy_reaches_no_other_client(
    service: Service, tmp_path: Path, program: str, target: str, body: bytes
) -> None:
    if not installed(program):
        pytest.skip(f"not installed: {program}")
    async with proxy(program, tmp_path, service.port) as port:
        for _ in range(3):
            hostile, victim = await Connection.open(port), await Connection.open(port)
            try:
                hostile.send(connect(target) + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                assert (await hostile.answer()).status >= 400
                seen = await victim.ask("GET", "/api/jobs/job-2", token=service.token)
                assert (seen.status, seen.json()["id"]) == (200, "job-2")
            finally:
                await hostile.close()
                await victim.close()
