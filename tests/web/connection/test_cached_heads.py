"""Who asks as before, but for another job, is answered without the parser, and nobody can tell."""

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
from jobsvc.web.connection.protocol import Connection as Served
from tests.conftest import MakeJob, Serve
from tests.fast_path import comparable, reading_paused, send_until_blocked, wait_until_idle, warm_up
from tests.raw_http import Answer, Connection, Fields, request
from tests.service_runner import Service

FILM: Final = bytes(range(256)) * 300
ONE: Final = "/api/jobs/job-1"
OTHER: Final = "/api/jobs/job-2"


@pytest.fixture
async def service(settled: None, serve: Serve, make_job: MakeJob, jobs_root: Any) -> Service:
    make_job("job-1", output=FILM)
    make_job("job-2", output=FILM)
    if CachedOutputs.of(jobs_root) is None:
        pytest.skip("on this file system opening may wait")
    return await serve()


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Gather what the parser is given."""
    given: list[bytes] = []
    take: Callable[[Any, bytes], None] = web.RequestHandler.data_received

    def taken(connection: web.RequestHandler, data: bytes) -> None:
        given.append(data)
        take(connection, data)

    monkeypatch.setattr(web.RequestHandler, "data_received", taken)
    return given


async def known(link: Connection, service: Service, fields: Fields = ()) -> None:
    """Have the service know a connection, and wait for what it asks for next."""
    await warm_up(link, service, ONE, fields)
    await wait_until_idle(service)


@pytest.mark.both_loops
@pytest.mark.parametrize("target", [OTHER, f"{OTHER}/download"])
async def test_it_is_the_same_answer_as_to_a_request_that_is_parsed(
    service: Service, parsed: list[bytes], target: str
) -> None:
    fields = (("Range", "bytes=100-199"),)
    async with service.connect() as link:
        await warm_up(link, service, target, fields)
    async with service.connect() as link:
        await known(link, service, fields)
        parsed.clear()
        seen = [await link.ask("GET", target, fields, token=service.token) for _ in range(3)]
        assert not parsed
    other = await service.get(target, *fields)
    assert parsed
    assert [comparable(answer) for answer in seen] == [comparable(other)] * 3


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("target", "status"),
    [("/healthz", 200), ("/api/jobs/job-9", 404), ("/api/jobs/..", 404), (f"{ONE}/x", 404)],
)
async def test_what_is_not_answered_at_once_goes_the_general_way(
    service: Service, target: str, status: int
) -> None:
    async with service.connect() as link:
        await known(link, service)
        for _ in range(2):
            assert (await link.ask("GET", target, token=service.token)).status == status
            assert (await link.ask("GET", OTHER, token=service.token)).status == 200


@pytest.mark.both_loops
async def test_what_needs_a_wait_is_looked_at_once_before_it_has_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, tried = Served._try_fast, []

    def counted(self: Served, message: Any, target: str) -> bool:
        tried.append(target)
        return answer(self, message, target)

    async with service.connect() as link:
        await known(link, service)
        monkeypatch.setattr(Served, "_try_fast", counted)
        assert (await link.ask("GET", "/api/jobs/job-9", token=service.token)).status == 404
    assert tried == ["/api/jobs/job-9"]


async def test_each_request_has_its_own_fields(service: Service) -> None:
    async with service.connect() as link:
        await known(link, service)
        tag = (await link.ask("GET", OTHER, token=service.token)).headers["ETag"]
        same = [("If-None-Match", tag)]
        answers = [await link.ask("GET", OTHER, same, token=service.token) for _ in range(3)]
        assert [answer.status for answer in answers] == [304] * 3
        assert (await link.ask("GET", ONE, same, token=service.token)).status == 200
        assert (await link.ask("GET", OTHER, token=service.token)).status == 200


@pytest.mark.both_loops
async def test_nobody_is_let_in_by_the_fields_of_the_request_before(service: Service) -> None:
    async with service.connect() as link:
        await known(link, service)
        assert (await link.ask("GET", OTHER)).status == 401
        assert (await link.ask("GET", OTHER, token="jsvc_" + "w" * 43)).status == 401
        assert (await link.ask("GET", OTHER, token=service.token)).status == 200


@pytest.mark.both_loops
async def test_nobody_is_let_in_by_a_head_whose_end_looks_like_a_whole_one(service: Service) -> None:
    async with service.connect() as link:
        await known(link, service)
        for _ in range(3):
            link.send(f"GET {ONE} HTTP/1.1\r\nAuthorization: Bearer {service.token}\r\nX: ".encode())
            await wait_until_idle(service)  # by then it has read so far
            assert (await link.ask("GET", ONE)).status == 200
            assert (await link.ask("GET", ONE)).status == 401


@pytest.mark.both_loops
async def test_the_end_of_a_head_is_no_request_though_it_looks_like_the_one_before(service: Service) -> None:
    async with service.connect() as link:
        await known(link, service)
        for _ in range(3):
            link.send(f"GET {ONE} HTTP/1.1\r\nX: ".encode())
            await wait_until_idle(service)
            assert (await link.ask("GET", OTHER, token=service.token)).json()["id"] == "job-1"
            assert (await link.ask("GET", OTHER, token=service.token)).json()["id"] == "job-2"


async def test_a_token_that_is_revoked_lets_nobody_in_again(service: Service) -> None:
    async with service.connect() as link:
        await known(link, service)
        tokens = service.state_dir / "tokens.json"
        revoke(tokens, load(tokens)[0].id)

        ends = time.monotonic() + 2
        while (await link.ask("GET", OTHER, token=service.token)).status != 401:
            assert time.monotonic() < ends
            await asyncio.sleep(0.02)


@pytest.mark.both_loops
async def test_a_range_that_its_client_does_not_take_is_accounted_for_in_the_end(service: Service) -> None:
    """For what lasts longer than the moment, a request is made after all."""
    fields = [("Range", "bytes=0-65535")]
    async with service.connect(receive_buffer=4096) as link:
        await known(link, service, fields)
        part = request("GET", f"{OTHER}/download", fields, token=service.token)
        with reading_paused(link):
            count = await send_until_blocked(link, service, lambda _number: part)
        for _ in range(count):
            assert (await link.answer()).body == FILM[:65536]
    assert {line["job"] for line in await service.wait_for_downloads(count)} == {"job-2"}


@pytest.mark.both_loops
async def test_who_sends_no_more_has_his_answer_still(service: Service) -> None:
    async with service.connect() as link:
        await known(link, service)
        link.send(request("GET", OTHER, token=service.token))
        link.writer.write_eof()
        assert (await link.answer()).json()["id"] == "job-2"
        assert await link.ended()


class Question(NamedTuple):
    """A GET, and whose."""

    target: str
    fields: tuple[tuple[str, str], ...] = ()
    token: str | None = None


@pytest.mark.both_loops
@pytest.mark.parametrize("seed", range(6))
async def test_however_requests_are_cut_and_joined_each_has_the_answer_that_it_has_alone(
    service: Service, seed: int
) -> None:
    """Most repeat the one before, but for the job; some come in pieces, and some with the next."""
    chance = random.Random(seed)  # noqa: S311 - only something that differs
    token, part = service.token, (("Range", "bytes=5-14"),)
    usual = [Question(ONE, token=token), Question(OTHER, token=token)]
    seldom = [
        Question(f"{ONE}/download", part, token),
        Question(f"{OTHER}/download", part, token),
        Question(OTHER, (("X", f"GET {ONE} HTTP/1.1"),), token),
        Question(ONE),
        Question(OTHER, token="jsvc_" + "w" * 43),
        Question("/healthz"),
        Question(f"{ONE}?", token=token),
        Question("/api/jobs/job-9", token=token),
    ]
    alone = {
        each: told(await service.get(each.target, *each.fields, token=each.token)) for each in usual + seldom
    }
    asked = [chance.choice(usual if chance.random() < 0.8 else seldom) for _ in range(80)]
    heads = [request("GET", each.target, each.fields, token=each.token) for each in asked]
    stream, ends = b"".join(heads), list(accumulate(map(len, heads)))
    cuts = sorted({0, *chance.sample(range(len(stream)), 20), *chance.sample(ends, 60), len(stream)})
    async with service.connect() as link:
        for start, stop in pairwise(cuts):
            link.send(stream[start:stop])
            await wait_until_idle(service)  # by then it has read so far
        assert [told(await link.answer()) for _ in asked] == [alone[each] for each in asked]


def told(answer: Answer) -> tuple[int, object]:
    return answer.status, answer.code if answer.status >= 400 else comparable(answer)
