"""Each kind of response after each other on one connection equals the response on a connection of its own."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import pytest

from tests.clients.raw_http import Answer, Connection, request
from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import Service

SMALL: Final = random.Random(2).randbytes(9000)  # noqa: S311 - only bytes that differ, as below
LARGE: Final = random.Random(3).randbytes(150_000)  # noqa: S311
DOWNLOAD: Final = "/api/jobs/small/download"
STREAMED: Final = "/api/jobs/large/download"
WRONG: Final = "jsvc_" + "x" * 43


@dataclass(frozen=True)
class Kind:
    """A request and the status of its response."""

    status: int
    target: str = DOWNLOAD
    fields: tuple[tuple[str, str], ...] = ()
    method: str = "GET"
    token: str | None = ""
    """Defaults to the service's token."""
    body: bytes = b""
    chunked: tuple[bytes, ...] = field(default=(), kw_only=True)

    def bytes(self, token: str | None, *, version: str = "1.1", close: str | None = None) -> bytes:
        """Serialize the request; `close` is the Connection field."""
        fields = self.fields + ((("Connection", close),) if close else ())
        tail = b""
        if self.chunked:
            fields += (("Transfer-Encoding", "chunked"),)
            tail = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*self.chunked, b""))
        own = token if self.token == "" else self.token
        head = request(self.method, self.target, fields, token=own, version=version, body=self.body)
        return head + tail


def part(what: str) -> tuple[tuple[str, str], ...]:
    return (("Range", f"bytes={what}"),)


KINDS: Final = {
    "whole": Kind(200),
    "whole-streamed": Kind(200, STREAMED),
    "head": Kind(200, method="HEAD"),
    "head-streamed": Kind(200, STREAMED, part("0-9"), "HEAD"),
    "range": Kind(206, fields=part("10-19")),
    "range-streamed": Kind(206, STREAMED, part("100-129999")),
    "ranges": Kind(206, fields=part("0-9,5000-5009")),
    "ranges-streamed": Kind(206, STREAMED, part("0-9,5000-125000")),
    "not-modified": Kind(304, fields=(("If-None-Match", "*"),)),
    "condition-failed": Kind(412, fields=(("If-Match", '"other"'),)),
    "unsatisfiable": Kind(416, STREAMED, part("150000-")),
    "empty": Kind(200, "/api/jobs/empty/download"),
    "empty-unsatisfiable": Kind(416, "/api/jobs/empty/download", part("0-")),
    "queued": Kind(409, "/api/jobs/queued/download"),
    "missing": Kind(404, "/api/jobs/missing/download"),
    "unknown": Kind(404, "/api/jobs/unknown/download"),
    "head-unknown": Kind(404, "/api/jobs/unknown/download", method="HEAD"),
    "no-token": Kind(401, token=None),
    "wrong-token": Kind(401, token=WRONG),
    "nowhere": Kind(404, "/nowhere"),
    "no-method": Kind(405, method="DELETE"),
    "no-method-with-a-body": Kind(405, method="PUT", body=LARGE),
    "get-with-a-body": Kind(200, body=b"GET / HTTP/1.1\r\n\r\n"),
    "get-in-chunks": Kind(206, STREAMED, part("5-99999"), chunked=(b"GET ", b"/ HTTP/1.1\r\n\r\n")),
    "status": Kind(200, "/api/jobs/small"),
    "status-not-modified": Kind(304, "/api/jobs/small", (("If-None-Match", "*"),)),
    "log": Kind(200, "/api/jobs/small/logs"),
    "log-tail": Kind(206, "/api/jobs/small/logs?tail=2", part("-5")),
    "no-log": Kind(404, "/api/jobs/large/logs"),
    "health": Kind(200, "/healthz"),
    "link": Kind(201, "/api/jobs/small/download-links", method="POST", body=b'{"expiresIn": 60}'),
    "no-link": Kind(400, "/api/jobs/small/download-links", method="POST", chunked=(b"{",)),
    "too-large": Kind(413, "/api/jobs/small/download-links", method="POST", body=b" " * 65_537),
    "expectation": Kind(417, fields=(("Expect", "miracles"),)),
}
PROBE: Final = Kind(206, fields=part("7-9"))


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job("small", output=SMALL, log=b"".join(b"line %d\n" % number for number in range(20_000)))
    make_job("large", output=LARGE)
    make_job("empty", output=b"")
    make_job("queued")
    make_job("missing", status="completed", outputPath="output/film.mp4")
    endless = dict.fromkeys(("limit_auth_failures", "limit_logs"), "1000000/minute")
    return await serve(**endless)


ADDRESS: Final = re.compile(rb'"(?:(?:/api/jobs/)?[\w-]+/)?download(?=[/?])')


def essence(answer: Answer) -> tuple[int, int, bytes]:
    """Return what two responses to the same request have in common.

    Boundaries, ids and signatures differ. A URL is an absolute path, or relative for HTTP/1.0, as a proxy's
    request may be.
    """
    own = answer.headers["X-Request-Id"].encode()
    kind, _, boundary = answer.headers.get("Content-Type", "").partition("; boundary=")
    body = answer.body.replace(own, b"ID")
    if kind == "multipart/byteranges":
        body = body.replace(boundary.encode(), b"BOUNDARY")
    body = ADDRESS.sub(b'"download', body)
    return answer.status, len(body), b"a link" if answer.status == 201 else body


@pytest.fixture
async def alone(service: Service) -> dict[str, tuple[int, int, bytes]]:
    """The response to each kind on a connection of its own."""
    answers = {}
    for name, kind in KINDS.items():
        async with service.connect() as link:
            link.send(kind.bytes(service.token))
            answers[name] = essence(await link.answer(kind.method))
        assert answers[name][0] == kind.status, name
    whole = {name: answers[name][2] for name in ("whole", "whole-streamed", "get-with-a-body", "empty")}
    assert whole == {"whole": SMALL, "whole-streamed": LARGE, "get-with-a-body": SMALL, "empty": b""}
    return answers


async def assert_in_sync(link: Connection, service: Service) -> None:
    """Check that the next response belongs to the next request."""
    link.send(PROBE.bytes(service.token))
    answer = await link.answer()
    assert (answer.status, answer.body) == (206, SMALL[7:10])


def de_bruijn_sequence(names: list[str]) -> Iterator[str]:
    """Order names so that each follows each, including itself, exactly once."""
    for place, name in enumerate(names):
        yield name
        for later in names[place + 1 :]:
            yield from (name, later)
    yield names[0]


@pytest.mark.both_loops
async def test_every_response_is_correct_after_every_other_on_one_connection(
    service: Service, alone: dict[str, tuple[int, int, bytes]]
) -> None:
    async with service.connect() as link:
        line, before = list(de_bruijn_sequence(list(KINDS))), None
        assert len(set(pairwise(line))) == len(line) - 1 == len(KINDS) ** 2
        for name in line:
            link.send(KINDS[name].bytes(service.token))
            assert essence(await link.answer(KINDS[name].method)) == alone[name], f"{name} after {before}"
            before = name
        await assert_in_sync(link, service)


@pytest.mark.both_loops
async def test_pipelined_requests_are_answered_in_order(
    service: Service, alone: dict[str, tuple[int, int, bytes]]
) -> None:
    names = [*KINDS] * 4
    random.Random(4).shuffle(names)  # noqa: S311 - any order
    async with service.connect() as link:
        link.send(b"".join(KINDS[name].bytes(service.token) for name in names))
        for name in names:
            assert essence(await link.answer(KINDS[name].method)) == alone[name], name
        await assert_in_sync(link, service)


@pytest.mark.parametrize("name", KINDS)
async def test_connection_closes_after_the_complete_response(
    service: Service, alone: dict[str, tuple[int, int, bytes]], name: str
) -> None:
    kind = KINDS[name]
    async with service.connect() as link:
        link.send(kind.bytes(service.token, close="close"))
        answer = await link.answer(kind.method)
        assert essence(answer) == alone[name]
        assert answer.headers["Connection"].lower() == "close"
        assert await link.ended()


# In HTTP/1.0 there is no Expect and there are no chunks.
OLD: Final = [name for name, kind in KINDS.items() if name != "expectation" and not kind.chunked]


@pytest.mark.parametrize("name", OLD)
async def test_http_1_0_gets_the_same_response_and_the_connection_closes(
    service: Service, alone: dict[str, tuple[int, int, bytes]], name: str
) -> None:
    kind = KINDS[name]
    async with service.connect() as link:
        link.send(kind.bytes(service.token, version="1.0"))
        answer = await link.answer(kind.method)
        assert essence(answer) == alone[name]
        assert "Transfer-Encoding" not in answer.headers
        assert answer.headers.get("Connection", "close").lower() == "close"
        assert await link.ended()


async def test_http_1_0_may_request_keep_alive(
    service: Service, alone: dict[str, tuple[int, int, bytes]]
) -> None:
    async with service.connect() as link:
        for name in OLD:
            kind = KINDS[name]
            link.send(kind.bytes(service.token, version="1.0", close="keep-alive"))
            answer = await link.answer(kind.method)
            assert essence(answer) == alone[name]
            assert answer.headers["Connection"].lower() == "keep-alive", name
