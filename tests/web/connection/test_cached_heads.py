"""A head that equals the previous one except for the job or the range is answered without the parser, with
the same response.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

import pytest
from aiohttp import web

from jobsvc.storage.nonblocking.cached_outputs import CachedOutputs
from jobsvc.storage.state.token_file import load, revoke
from jobsvc.web.connection.fast_connection import FastConnection
from tests.checks.fast_path import comparable, reading_paused, send_until_blocked, wait_until_idle, warm_up
from tests.clients.raw_http import Answer, Connection, Fields, request
from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import Service

FILM: Final = bytes(range(256)) * 300
ONE: Final = "/api/jobs/job-1"
OTHER: Final = "/api/jobs/job-2"


@pytest.fixture
async def service(
    treat_new_files_as_stable: None, serve: Serve, make_job: MakeJob, jobs_root: Any
) -> Service:
    make_job("job-1", output=FILM)
    make_job("job-2", output=FILM)
    if CachedOutputs.of(jobs_root) is None:
        pytest.skip("opening may block on this file system")
    return await serve()


@pytest.fixture
def parser_input(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Collect the data that the parser receives."""
    given: list[bytes] = []
    take: Callable[[Any, bytes], None] = web.RequestHandler.data_received

    def taken(connection: web.RequestHandler, data: bytes) -> None:
        given.append(data)
        take(connection, data)

    monkeypatch.setattr(web.RequestHandler, "data_received", taken)
    return given


async def warm_up_connection(link: Connection, service: Service, fields: Fields = ()) -> None:
    """Send requests until the connection's head is cached, and wait until the service is idle."""
    await warm_up(link, service, ONE, fields)
    await wait_until_idle(service)


@pytest.mark.both_loops
@pytest.mark.parametrize("target", [OTHER, f"{OTHER}/download"])
async def test_response_equals_that_to_a_parsed_request(
    service: Service, parser_input: list[bytes], target: str
) -> None:
    fields = (("Range", "bytes=100-199"),)
    async with service.connect() as link:
        await warm_up(link, service, target, fields)
    async with service.connect() as link:
        await warm_up_connection(link, service, fields)
        parser_input.clear()
        seen = [await link.ask("GET", target, fields, token=service.token) for _ in range(3)]
        assert not parser_input
    other = await service.get(target, *fields)
    assert parser_input
    assert [comparable(answer) for answer in seen] == [comparable(other)] * 3


@pytest.mark.both_loops
async def test_request_with_another_range_is_not_parsed_and_gets_that_range(
    service: Service, parser_input: list[bytes]
) -> None:
    target = f"{ONE}/download"
    async with service.connect() as link:
        await warm_up(link, service, target, (("Range", "bytes=0-0"),))
        parser_input.clear()
        for first, last in ((100, 199), (7, 7), (0, 65_535)):
            fields = (("Range", f"bytes={first}-{last}"),)
            answer = await link.ask("GET", target, fields, token=service.token)
            assert (answer.status, answer.body) == (206, FILM[first : last + 1])
        assert not parser_input


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("target", "status"),
    [("/healthz", 200), ("/api/jobs/job-9", 404), ("/api/jobs/..", 404), (f"{ONE}/x", 404)],
)
async def test_requests_not_handled_by_the_fast_path_take_the_general_path(
    service: Service, target: str, status: int
) -> None:
    async with service.connect() as link:
        await warm_up_connection(link, service)
        for _ in range(2):
            assert (await link.ask("GET", target, token=service.token)).status == status
            assert (await link.ask("GET", OTHER, token=service.token)).status == 200


@pytest.mark.both_loops
async def test_request_that_needs_a_wait_is_tried_once_on_the_fast_path(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, tried = FastConnection._try_fast, []

    def counted(self: FastConnection, message: Any, target: str) -> bool:
        tried.append(target)
        return answer(self, message, target)

    async with service.connect() as link:
        await warm_up_connection(link, service)
        monkeypatch.setattr(FastConnection, "_try_fast", counted)
        assert (await link.ask("GET", "/api/jobs/job-9", token=service.token)).status == 404
    assert tried == ["/api/jobs/job-9"]


async def test_each_request_is_answered_by_its_own_header_fields(service: Service) -> None:
    async with service.connect() as link:
        await warm_up_connection(link, service)
        tag = (await link.ask("GET", OTHER, token=service.token)).headers["ETag"]
        same = [("If-None-Match", tag)]
        answers = [await link.ask("GET", OTHER, same, token=service.token) for _ in range(3)]
        assert [answer.status for answer in answers] == [304] * 3
        assert (await link.ask("GET", ONE, same, token=service.token)).status == 200
        assert (await link.ask("GET", OTHER, token=service.token)).status == 200


@pytest.mark.both_loops
async def test_request_is_not_authorized_by_the_header_of_the_previous_request(service: Service) -> None:
    async with service.connect() as link:
        await warm_up_connection(link, service)
        assert (await link.ask("GET", OTHER)).status == 401
        assert (await link.ask("GET", OTHER, token="jsvc_" + "w" * 43)).status == 401
        assert (await link.ask("GET", OTHER, token=service.token)).status == 200


@pytest.mark.both_loops
async def test_head_whose_end_looks_like_a_complete_head_authorizes_nothing(service: Service) -> None:
    async with service.connect() as link:
        await warm_up_connection(link, service)
        for _ in range(3):
            link.send(f"GET {ONE} HTTP/1.1\r\nAuthorization: Bearer {service.token}\r\nX: ".encode())
            await wait_until_idle(service)  # the service has read everything so far
            assert (await link.ask("GET", ONE)).status == 200
            assert (await link.ask("GET", ONE)).status == 401


@pytest.mark.both_loops
async def test_end_of_a_head_that_looks_like_the_previous_head_is_not_a_request(service: Service) -> None:
    async with service.connect() as link:
        await warm_up_connection(link, service)
        for _ in range(3):
            link.send(f"GET {ONE} HTTP/1.1\r\nX: ".encode())
            await wait_until_idle(service)
            assert (await link.ask("GET", OTHER, token=service.token)).json()["id"] == "job-1"
            assert (await link.ask("GET", OTHER, token=service.token)).json()["id"] == "job-2"


@pytest.mark.alone
async def test_revoked_token_is_rejected_within_two_seconds(service: Service) -> None:
    async with service.connect() as link:
        await warm_up_connection(link, service)
        tokens = service.state_dir / "tokens.json"
        revoke(tokens, load(tokens)[0].id)

        ends = time.monotonic() + 2
        while (await link.ask("GET", OTHER, token=service.token)).status != 401:
            assert time.monotonic() < ends
            await asyncio.sleep(0.02)


@pytest.mark.both_loops
async def test_range_that_the_client_reads_late_is_logged(service: Service) -> None:
    """A response that has to wait for the client gets a request object after all."""
    fields = [("Range", "bytes=0-65535")]
    async with service.connect(receive_buffer=4096) as link:
        await warm_up_connection(link, service, fields)
        part = request("GET", f"{OTHER}/download", fields, token=service.token)
        with reading_paused(link):
            count = await send_until_blocked(link, service, lambda _number: part)
        for _ in range(count):
            assert (await link.answer()).body == FILM[:65536]
    assert {line["job"] for line in await service.wait_for_downloads(count)} == {"job-2"}


@pytest.mark.both_loops
async def test_client_that_half_closes_still_gets_its_response(service: Service) -> None:
    async with service.connect() as link:
        await warm_up_connection(link, service)
        link.send(request("GET", OTHER, token=service.token))
        link.writer.write_eof()
        assert (await link.answer()).json()["id"] == "job-2"
        assert await link.ended()


class Get(NamedTuple):
    """A GET request and the token it is sent with."""

    target: str
    fields: tuple[tuple[str, str], ...] = ()
    token: str | None = None


@pytest.mark.both_loops
@pytest.mark.parametrize("seed", range(6))
async def test_requests_split_and_joined_anywhere_get_the_responses_they_get_alone(
    service: Service, seed: int
) -> None:
    """Most requests equal the previous one except for the job; some arrive in pieces, some
    with the next one.
    """
    chance = random.Random(seed)  # noqa: S311 - only something that differs
    token, part = service.token, (("Range", "bytes=5-14"),)
    frequent = [Get(ONE, token=token), Get(OTHER, token=token)]
    rare = [
        Get(f"{ONE}/download", part, token),
        Get(f"{OTHER}/download", part, token),
        Get(OTHER, (("X", f"GET {ONE} HTTP/1.1"),), token),
        Get(ONE),
        Get(OTHER, token="jsvc_" + "w" * 43),
        Get("/healthz"),
        Get(f"{ONE}?", token=token),
        Get("/api/jobs/job-9", token=token),
    ]
    expected = {
        each: essence(await service.get(each.target, *each.fields, token=each.token))
        for each in frequent + rare
    }
    chosen = [chance.choice(frequent if chance.random() < 0.8 else rare) for _ in range(80)]
    heads = [request("GET", each.target, each.fields, token=each.token) for each in chosen]
    stream, ends = b"".join(heads), list(accumulate(map(len, heads)))
    cuts = sorted({0, *chance.sample(range(len(stream)), 20), *chance.sample(ends, 60), len(stream)})
    async with service.connect() as link:
        for start, stop in pairwise(cuts):
            link.send(stream[start:stop])
            await wait_until_idle(service)  # the service has read everything so far
        assert [essence(await link.answer()) for _ in chosen] == [expected[each] for each in chosen]


def essence(answer: Answer) -> tuple[int, object]:
    return answer.status, answer.code if answer.status >= 400 else comparable(answer)
