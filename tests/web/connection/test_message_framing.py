"""Connections and message framing (RFC 9112), tested byte by byte over sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests.clients.raw_http import RESPONSE_TIMEOUT_S, Answer, Connection, request
from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import Service
from tests.programs.shared_service import shared_service

FILM = bytes(range(256)) * 40
LARGE = os.urandom(3_000_000)
ROUTE = "/api/jobs/job-1/download"

CODE_OF = {414: "uri-too-long", 431: "request-header-fields-too-large"}

Expected = tuple[int, bytes | None]
"""Status, and the body if it is not a problem document."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    jobs: dict[str, bytes | str] = {"job-1": FILM, "large": LARGE, "empty": b"", "queued": "queued"}
    with shared_service(tmp_path_factory.mktemp("standing"), jobs) as process:
        yield process


@pytest.fixture
async def on_loop(serve: Serve, make_job: MakeJob) -> Service:
    """A service on the test's own event loop, for behavior that differs between loops."""
    make_job(output=FILM)
    make_job("large", output=LARGE)
    return await serve()


def get(
    service: Service,
    *fields: tuple[str, str],
    target: str = ROUTE,
    method: str = "GET",
    version: str = "1.1",
    body: bytes = b"",
) -> bytes:
    return request(method, target, fields, token=service.token, version=version, body=body)


def range_request(service: Service, count: int) -> bytes:
    """Build a request for the first bytes of the film; `count` makes each such request distinct."""
    return get(service, ("Range", f"bytes=0-{count - 1}"))


async def answers(link: Connection, methods: Iterable[str]) -> list[Answer]:
    return [await link.answer(method) for method in methods]


async def refused(service: Service, data: bytes) -> int:
    """Send a request that has to be refused; return the status and check that nothing follows
    the response.
    """
    async with service.connect() as link:
        link.send(data)
        answer = await link.answer()
        assert answer.headers["Connection"] == "close"
        assert answer.code == CODE_OF.get(answer.status, "bad-request")
        assert "Date" in answer.headers
        assert await link.ended()
    return answer.status


async def assert_connection_usable(service: Service, data: bytes, *expected: Expected) -> None:
    """Send requests and then one more, which has to be answered too."""
    async with service.connect() as link:
        link.send(data + range_request(service, 7))
        for status, body in expected:
            answer = await link.answer()
            assert answer.status == status
            assert body is None or answer.body == body
        assert (await link.answer()).body == FILM[:7]


# Section 9.3: persistence.


ANSWERS = [
    pytest.param("GET", ROUTE, (), 200, id="200"),
    pytest.param("GET", "/api/jobs/large/download", (), 200, id="200, streamed"),
    pytest.param("GET", "/api/jobs/empty/download", (), 200, id="200, empty"),
    pytest.param("HEAD", ROUTE, (), 200, id="200 to HEAD"),
    pytest.param("GET", "/api/jobs/job-1", (), 200, id="200, a document"),
    pytest.param("GET", ROUTE, (("Range", "bytes=5-"),), 206, id="206"),
    pytest.param("GET", ROUTE, (("Range", "bytes=0-9,5000-5009"),), 206, id="206 in parts"),
    pytest.param("GET", ROUTE, (("If-None-Match", "*"),), 304, id="304"),
    pytest.param("GET", "/api/jobs/job-1", (("If-None-Match", "*"),), 304, id="304, a document"),
    pytest.param("HEAD", ROUTE, (("If-None-Match", "*"),), 304, id="304 to HEAD"),
    pytest.param("GET", ROUTE, (("If-Match", '"x"'),), 412, id="412"),
    pytest.param("HEAD", ROUTE, (("If-Match", '"x"'),), 412, id="412 to HEAD"),
    pytest.param("GET", ROUTE, (("Range", "bytes=99999-"),), 416, id="416"),
    pytest.param("GET", "/api/jobs/unknown/download", (), 404, id="404"),
    pytest.param("HEAD", "/api/jobs/unknown/download", (), 404, id="404 to HEAD"),
    pytest.param("GET", "/nothing", (), 404, id="404, no such address"),
    pytest.param("DELETE", ROUTE, (), 405, id="405"),
    pytest.param("GET", "/api/jobs/queued/download", (), 409, id="409"),
    pytest.param("GET", ROUTE, (("Expect", "miracles"),), 417, id="417"),
]


@pytest.mark.parametrize(("method", "target", "fields", "status"), ANSWERS)
async def test_connection_stays_open_after_every_kind_of_response(
    service: Service, method: str, target: str, fields: tuple[tuple[str, str], ...], status: int
) -> None:
    async with service.connect() as link:
        for count in (3, 5):
            answer = await link.ask(method, target, fields, token=service.token)
            assert (answer.version, answer.status) == ("1.1", status)
            assert "Connection" not in answer.headers
            assert (await link.ask("GET", ROUTE, [("Range", f"bytes=0-{count}")], token=service.token)).body


@pytest.mark.parametrize(("method", "target", "fields", "status"), ANSWERS)
async def test_connection_close_is_honored_after_the_response(
    service: Service, method: str, target: str, fields: tuple[tuple[str, str], ...], status: int
) -> None:
    """Section 9.6: nothing sent after such a request is processed."""
    async with service.connect() as link:
        closing = get(service, *fields, ("Connection", "close"), target=target, method=method)
        link.send(closing + range_request(service, 3))
        answer = await link.answer(method)
        assert (answer.status, answer.headers["Connection"]) == (status, "close")
        assert await link.ended()


@pytest.mark.parametrize("lines", [["Close"], ["CLOSE"], ["foo, close"], ["close ,foo"], ["foo", "close"]])
async def test_close_option_is_found_in_a_list_and_is_case_insensitive(
    service: Service, lines: list[str]
) -> None:
    async with service.connect() as link:
        link.send(get(service, *[("Connection", line) for line in lines]))
        answer = await link.answer()
        assert (answer.body, answer.headers["Connection"]) == (FILM, "close")
        assert await link.ended()


@pytest.mark.parametrize(("method", "target", "fields", "status"), ANSWERS)
async def test_http_1_0_connection_closes_after_the_response_unless_keep_alive_is_requested(
    service: Service, method: str, target: str, fields: tuple[tuple[str, str], ...], status: int
) -> None:
    if status == 417:
        status = 200  # section 10.1.1 of RFC 9110: no expectation in HTTP/1.0
    async with service.connect() as link:
        for _ in range(2):
            kept = get(
                service, *fields, ("Connection", "keep-alive"), target=target, method=method, version="1.0"
            )
            link.send(kept)
            answer = await link.answer(method)
            assert (answer.status, answer.headers["Connection"]) == (status, "keep-alive")
            assert "Transfer-Encoding" not in answer.headers
        link.send(get(service, *fields, target=target, method=method, version="1.0"))
        answer = await link.answer(method)
        assert (answer.status, answer.headers.get("Connection", "close")) == (status, "close")
        assert await link.ended()


# Section 9.3.2: pipelining.


async def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    kinds: list[Any] = [parameters.values for parameters in ANSWERS]
    async with service.connect() as link:
        requests = [
            get(service, *fields, ("X-Request-Id", f"n-{place}"), target=target, method=method)
            for place, (method, target, fields, _) in enumerate(kinds)
        ]
        link.send(b"".join(requests))
        for place, (method, _, _, status) in enumerate(kinds):
            answer = await link.answer(method)
            assert (answer.status, answer.headers["X-Request-Id"]) == (status, f"n-{place}")


@pytest.mark.parametrize("count", [10, 31, 32, 33, 100, 300])
async def test_many_requests_in_one_packet_are_all_answered(service: Service, count: int) -> None:
    async with service.connect() as link:
        link.send(b"".join(range_request(service, 1 + place % 50) for place in range(count)))
        for place in range(count):
            assert (await link.answer()).body == FILM[: 1 + place % 50]


@pytest.mark.both_loops
async def test_large_responses_are_pipelined(on_loop: Service) -> None:
    async with on_loop.connect() as link:
        link.send(get(on_loop, target="/api/jobs/large/download") * 3 + range_request(on_loop, 9))
        for answer in await answers(link, ["GET"] * 3):
            assert answer.body == LARGE
        assert (await link.answer()).body == FILM[:9]


async def test_request_may_arrive_byte_by_byte(service: Service) -> None:
    async with service.connect() as link:
        plain = link.writer.get_extra_info("socket")
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in range_request(service, 4) + range_request(service, 5):
            link.send(bytes([octet]))
            await asyncio.sleep(0)
        assert (await link.answer()).body == FILM[:4]
        assert (await link.answer()).body == FILM[:5]


@pytest.mark.both_loops
@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(b"GARBAGE\r\n\r\n", id="no HTTP"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", id="a bad field"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no Host"),
        pytest.param(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", id="another version"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", id="a bad body"
        ),
    ],
)
async def test_requests_before_a_bad_request_in_the_same_packet_are_answered(
    on_loop: Service, behind: bytes
) -> None:
    """Section 9.2: responses are associated with requests by their order."""
    async with on_loop.connect() as link:
        link.send(
            range_request(on_loop, 3) + get(on_loop, method="HEAD") + range_request(on_loop, 5) + behind
        )
        assert (await link.answer()).body == FILM[:3]
        assert (await link.answer("HEAD")).content_length == len(FILM)
        assert (await link.answer()).body == FILM[:5]
        assert (await link.answer()).status in {400, 505}
        assert await link.ended()


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
async def test_upgrade_is_ignored(service: Service, protocol: str) -> None:
    """RFC 9110, section 7.8: a server may ignore it. curl --http2 sends one with each first request."""
    offer = get(service, ("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", protocol))
    await assert_connection_usable(service, offer, (200, FILM))


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(ROUTE, FILM, id="in memory"),
        pytest.param("/api/jobs/large/download", LARGE, id="streamed"),
        pytest.param("/api/jobs/job-1", None, id="a document"),
        pytest.param("/nothing", None, id="a problem"),
    ],
)
async def test_client_that_half_closes_is_answered(
    on_loop: Service, target: str, expected: bytes | None
) -> None:
    """Section 9.6: a half-close does not imply that the client is no longer interested in a response."""
    async with on_loop.connect() as link:
        link.send(range_request(on_loop, 3) + get(on_loop, target=target))
        link.writer.write_eof()
        assert (await link.answer()).body == FILM[:3]
        answer = await link.answer()
        assert answer.body == expected or expected is None
        assert await link.ended()
    async with on_loop.connect() as link:
        link.send(get(on_loop, target=target))
        link.writer.write_eof()
        answer = await link.answer()
        assert answer.body == expected or expected is None
        assert await link.ended()


@pytest.mark.both_loops
@pytest.mark.parametrize("unfinished", [0, 1, 5])
async def test_incomplete_request_closes_the_connection(on_loop: Service, unfinished: int) -> None:
    """Section 8: the request is incomplete; those before it are answered."""
    async with on_loop.connect() as link:
        whole = get(on_loop, body=b"12345")
        link.send(range_request(on_loop, 3) + whole[: len(whole) - unfinished])
        link.writer.write_eof()
        async with asyncio.timeout(RESPONSE_TIMEOUT_S / 3):  # an incomplete one waits for its rest
            assert (await link.answer()).body == FILM[:3]
            if not unfinished:
                assert (await link.answer()).body == FILM
            await link.reader.read()
    async with on_loop.connect() as link:
        link.send(range_request(on_loop, 3)[:-4])
        link.writer.write_eof()
        assert await link.ended()


@pytest.mark.both_loops
async def test_connection_closed_without_a_request_is_closed(on_loop: Service) -> None:
    async with on_loop.connect() as link:
        link.writer.write_eof()
        assert await link.ended()
    async with on_loop.connect() as link:
        await link.ask("GET", ROUTE, token=on_loop.token)
        link.writer.write_eof()
        assert await link.ended()


# Section 6: bodies, which every GET may have.


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        pytest.param([("Content-Length", "0")], b"", id="of no bytes"),
        pytest.param([("Content-Length", "5")], b"hello", id="of a length"),
        pytest.param([("Content-Length", "300000")], b"x" * 300_000, id="a large one"),
        pytest.param(
            [("Content-Length", "22")], b"GET / HTTP/1.1\r\nX: y\r\n", id="that looks like a request"
        ),
        pytest.param([("Content-Length", "12")], b"\r\n\r\n" * 3, id="of ends of heads"),
        pytest.param([("Transfer-Encoding", "chunked")], b"5\r\nhello\r\n0\r\n\r\n", id="chunked"),
        pytest.param([("Transfer-Encoding", "Chunked")], b"5\r\nhello\r\n0\r\n\r\n", id="Chunked"),
        pytest.param(
            [("Transfer-Encoding", "chunked")],
            b'00A;a="b;c"\r\nhelloworld\r\n0\r\nX: y\r\n\r\n',
            id="chunked, an extension and a trailer",
        ),
    ],
)
@pytest.mark.parametrize(
    ("method", "target", "asked", "status"),
    [
        ("GET", ROUTE, [], 200),
        ("GET", "/api/jobs/large/download", [], 200),
        ("GET", ROUTE, [("Range", "bytes=99999-")], 416),
        ("GET", ROUTE, [("If-None-Match", "*")], 304),
        ("GET", "/nothing", [], 404),
        ("POST", ROUTE, [], 405),
    ],
)
async def test_request_body_is_read_and_ignored(
    service: Service,
    fields: list[tuple[str, str]],
    body: bytes,
    method: str,
    target: str,
    asked: list[tuple[str, str]],
    status: int,
) -> None:
    """Section 9.3: otherwise the rest would be taken for the next request."""
    data = get(service, *asked, *fields, target=target, method=method) + body
    await assert_connection_usable(service, data, (status, None))


async def test_body_that_arrives_late_is_read(service: Service) -> None:
    async with service.connect() as link:
        answer = await link.ask("GET", ROUTE, [("Content-Length", "5")], token=service.token)
        assert answer.body == FILM
        link.send(b"hel")
        link.send(b"lo" + range_request(service, 4))
        assert (await link.answer()).body == FILM[:4]


@pytest.mark.both_loops
async def test_unreadable_body_closes_the_connection(on_loop: Service) -> None:
    async with on_loop.connect() as link:
        answer = await link.ask("GET", ROUTE, [("Transfer-Encoding", "chunked")], token=on_loop.token)
        assert answer.body == FILM
        link.send(b"zz\r\n\r\n")
        async with asyncio.timeout(RESPONSE_TIMEOUT_S / 3):
            await link.reader.read()


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param([("Content-Length", "5"), ("Transfer-Encoding", "chunked")], 400, id="both framings"),
        pytest.param([("Transfer-Encoding", "identity")], 400, id="chunked is not the final coding"),
        pytest.param([("Transfer-Encoding", "chunked, gzip")], 400, id="another is the final coding"),
        pytest.param([("Transfer-Encoding", "gzip, chunked")], 501, id="a coding that nobody knows here"),
        pytest.param([("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")], 400, id="twice"),
        pytest.param([("Content-Length", "5"), ("Content-Length", "6")], 400, id="two lengths"),
        pytest.param([("Content-Length", "5, 6")], 400, id="a list of lengths"),
        pytest.param([("Content-Length", "-5")], 400, id="a negative length"),
        pytest.param([("Content-Length", "+5")], 400, id="a length with a sign"),
        pytest.param([("Content-Length", "0x5")], 400, id="a hexadecimal length"),
        pytest.param([("Content-Length", "5 5")], 400, id="a length with a space"),
        pytest.param([("Content-Length", "")], 400, id="no length"),
        pytest.param([("Content-Length", "9" * 30)], 400, id="a length beyond counting"),
    ],
)
async def test_ambiguous_framing_is_refused(
    service: Service, fields: list[tuple[str, str]], status: int
) -> None:
    """Sections 6.1 and 6.3."""
    assert await refused(service, get(service, *fields) + b"5\r\nhello\r\n0\r\n\r\n") == status


async def test_transfer_coding_in_http_1_0_is_refused(service: Service) -> None:
    """Section 6.1."""
    fields = [("Transfer-Encoding", "chunked"), ("Connection", "keep-alive")]
    assert await refused(service, get(service, *fields, version="1.0") + b"0\r\n\r\n") == 400


# Sections 2 to 5: the form of a request.


@pytest.mark.parametrize("host", ["", "jobs.example", "[::1]:80", "127.0.0.1:8080", "a_b%20c", "x:"])
async def test_any_valid_host_is_accepted(service: Service, host: str) -> None:
    line = range_request(service, 3).replace(b"Host: jobs.example", f"Host: {host}".encode())
    await assert_connection_usable(service, line, (206, FILM[:3]))


@pytest.mark.parametrize(
    "host", ["a b", "a/b", "user@host", "a:80:80", "a:b", "[::1", "%zz", "ä", "a?b", "a#b"]
)
async def test_invalid_host_is_refused(service: Service, host: str) -> None:
    """Section 3.2."""
    line = range_request(service, 3).replace(b"Host: jobs.example", f"Host: {host}".encode())
    assert await refused(service, line) == 400


@pytest.mark.parametrize("lines", ["X: y", "Host: a\r\nHost: a", "Host: a\r\nHost: b"])
async def test_exactly_one_host_field_is_required(service: Service, lines: str) -> None:
    line = range_request(service, 3).replace(b"Host: jobs.example", lines.encode())
    assert await refused(service, line) == 400


async def test_http_1_0_request_needs_no_host(service: Service) -> None:
    async with service.connect() as link:
        assert (await link.ask("GET", ROUTE, token=service.token, version="1.0")).body == FILM


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(f"http://other.example{ROUTE}", id="absolute-form, another host"),
        pytest.param(f"https://other.example:8443{ROUTE}", id="absolute-form, another scheme"),
        pytest.param(f"http://other.example{ROUTE}?token=b", id="absolute-form with a query"),
        pytest.param("/api/jobs/job%2D1/download", id="a percent-encoded id"),
        pytest.param("/%61pi/jobs/%6Aob-1/d%6Fwnload", id="percent-encoded everywhere"),
        pytest.param(f"{ROUTE}?", id="an empty query"),
        pytest.param(f"{ROUTE}?token=x&expires=1&signature=y", id="a query beside a token"),
        pytest.param(f"{ROUTE}?token={'a' * 7_900}", id="a long one"),
    ],
)
async def test_equivalent_request_targets_are_accepted(service: Service, target: str) -> None:
    """Sections 3.2.1 and 3.2.2; section 4.2.3 of RFC 9110."""
    await assert_connection_usable(service, get(service, target=target), (200, FILM))


@pytest.mark.parametrize(
    "target",
    [
        f"{ROUTE}/",
        f"/{ROUTE}",
        "/api//jobs/job-1/download",
        "/api/jobs/./job-1/download",
        "/api/jobs/x/../job-1/download",
        "/api/jobs/job-1%2Fdownload",
        "/API/jobs/job-1/download",
        "/api/jobs/JOB-1/download",
        "/api/jobs/job-1%00/download",
        "/api/jobs/%zz/download",
        "/api/jobs//download",
        "/api/jobs/job-1/download;x",
        "/jobs/job-1/download",
        "//",
    ],
)
async def test_different_target_is_another_resource(service: Service, target: str) -> None:
    await assert_connection_usable(service, get(service, target=target), (404, None))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param((b"GET ", b"BREW "), 501, id="a method that nobody knows"),
        pytest.param((b"GET ", b"get "), 501, id="methods have a case"),
        pytest.param((b"GET ", b"GET\t"), 400, id="a tab for a space"),
        pytest.param((b" HTTP/1.1", b" HTTP/1.1 "), 400, id="a space at the end"),
        pytest.param((b" HTTP/1.1", b" http/1.1"), 400, id="the name of HTTP has a case"),
        pytest.param((b" HTTP/1.1", b""), 400, id="no version"),
        pytest.param((b" HTTP/1.1", b" HTTP/0.9"), 400, id="a version before all"),
        pytest.param((b" HTTP/1.1", b" HTTP/1.10"), 400, id="a version of two digits"),
        pytest.param((b" HTTP/1.1", b" HTTP/2.0"), 505, id="a major version that we don't speak"),
        pytest.param((b"/api", b"api"), 400, id="no slash"),
        pytest.param((b"/api", b"/a pi"), 400, id="a space in the address"),
        pytest.param((b"/api", b"/\xc3\xa4"), 400, id="an address that is not ASCII"),
        pytest.param((b"/api", b"/" + b"a" * 9_000), 414, id="an address beyond all bounds"),
        pytest.param((b"Host", b"X: " + b"a" * 9_000 + b"\r\nHost"), 431, id="a field beyond all bounds"),
        pytest.param((b"Host", b"X: y\r\n" * 150 + b"Host"), 431, id="fields beyond all number"),
        pytest.param((b"Host", b" X: y\r\nHost"), 400, id="white space before the first field"),
        pytest.param((b"Range: ", b"Range : "), 400, id="white space before the colon"),
        pytest.param((b"bytes=", b"bytes=\r\n "), 400, id="a folded line"),
        pytest.param((b"bytes=", b"bytes=\r\n\t"), 400, id="a line folded by a tab"),
        pytest.param((b"Range: ", b"Range "), 400, id="no colon"),
        pytest.param((b"Range: ", b": "), 400, id="no name"),
        pytest.param((b"Range: ", b"Ra(nge: "), 400, id="a name that is no token"),
        pytest.param((b"bytes=", b"\0"), 400, id="a NUL in a value"),
        pytest.param((b"bytes=", b"\x01"), 400, id="a control character in a value"),
        pytest.param((b"bytes=", b"\r"), 400, id="a bare carriage return"),
        pytest.param((b"\r\n", b"\n"), 400, id="bare line feeds"),
    ],
)
async def test_malformed_request_is_refused_and_the_connection_closes(
    service: Service, change: tuple[bytes, bytes], status: int
) -> None:
    before, after = change
    assert await refused(service, range_request(service, 3).replace(before, after)) == status


@pytest.mark.parametrize("before", [b"\r\n", b"\r\n\r\n", b"\n"])
async def test_empty_lines_before_a_request_are_skipped(service: Service, before: bytes) -> None:
    """Section 2.2."""
    await assert_connection_usable(service, before + range_request(service, 3) + before, (206, FILM[:3]))


async def test_field_value_may_contain_non_ascii_octets(service: Service) -> None:
    await assert_connection_usable(
        service, range_request(service, 3).replace(b"Range", b"X: \xe4\xff\r\nRange"), (206, FILM[:3])
    )


# RFC 9110, section 10.1.1: Expect.


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
async def test_expect_100_continue_is_answered(service: Service, value: str) -> None:
    async with service.connect() as link:
        link.send(get(service, ("Expect", value), ("Content-Length", "5")))
        assert (await link.head())[1] == 100
        assert (await link.answer()).body == FILM
        link.send(b"hello" + range_request(service, 3))
        assert (await link.answer()).body == FILM[:3]


@pytest.mark.parametrize("target", [ROUTE, "/nowhere", "/api/jobs/job-1/x"])
async def test_non_ascii_expectation_is_unknown(service: Service, target: str) -> None:
    async with service.connect() as link:
        link.send(get(service, ("Expect", "100-contin\udcce"), target=target))
        assert (await link.answer()).status == 417


async def test_100_continue_is_not_sent_without_a_body_to_wait_for(service: Service) -> None:
    await assert_connection_usable(service, get(service, ("Expect", "100-continue")), (200, FILM))
