"""Each fault does what it says: a proxy without faults would let every client pass."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.clients import body_pieces, proxy_faults
from tests.clients.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.clients.raw_http import Answer, Connection, IncompleteAnswer, connection, request
from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import Service

FILM = bytes(range(256)) * 400
TARGET = "/api/jobs/job-1/files/main/film.mp4"


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=FILM)
    return await serve()


@asynccontextmanager
async def through(service: Service, *faults: Fault, seed: int = 0) -> AsyncIterator[Connection]:
    """Connect to a proxy that has these faults for each request."""
    proxy = FaultyProxy(service.port, always=faults, seed=seed)
    async with faulty_proxy(proxy), connection(proxy.port) as link:
        yield link


async def ask(service: Service, fault: Fault, *fields: tuple[str, str], seed: int = 0) -> Answer:
    async with through(service, fault, seed=seed) as link:
        return await link.ask("GET", TARGET, fields, token=service.token)


RANGE = ("Range", "bytes=1000-1999")


async def test_without_faults_every_response_is_the_services(service: Service) -> None:
    proxy = FaultyProxy(service.port)
    async with faulty_proxy(proxy), connection(proxy.port) as link:
        for method, fields, body in (("GET", (), FILM), ("GET", [RANGE], FILM[1000:2000]), ("HEAD", (), b"")):
            answer = await link.ask(method, TARGET, fields, token=service.token)
            assert answer.body == body
            assert {"ETag", "Content-Length"} < answer.headers.keys()
        created = await link.ask(
            "POST", "/api/jobs/job-1/download-links", token=service.token, body=b'{"expiresIn": 60}'
        )
        assert created.status == 201
    assert proxy.accepted_count == 1
    assert [each.sent for each in proxy.exchanges[:3]] == [len(FILM), 1000, 0]
    assert proxy.exchanges[1].content_range == f"bytes 1000-1999/{len(FILM)}"


async def test_event_streams_arrive_in_chunks(service: Service) -> None:
    async with through(service) as link:
        link.send(request("GET", "/api/jobs/job-1/events", token=service.token))
        _, status, headers = await link.head()
        assert (status, headers["Transfer-Encoding"]) == (200, "chunked")
        assert b"event: job" in await link.reader.readuntil(b"0\r\n\r\n")


async def test_faults_are_drawn_by_the_seed_until_the_budget_is_spent(service: Service) -> None:
    faults = (proxy_faults.refuse, proxy_faults.strip_etag, proxy_faults.cut_idle)

    async def drawn(seed: int) -> list[list[str]]:
        proxy = FaultyProxy(service.port, seed=seed, faults=faults, budget=5, share=0.7)
        async with faulty_proxy(proxy):
            for _ in range(12):
                async with connection(proxy.port) as link:
                    await link.ask("GET", "/healthz")
        return [each.faults for each in proxy.exchanges]

    first = await drawn(7)
    assert len([applied for applied in first if applied]) == 5
    assert first == await drawn(7)
    assert first != await drawn(8)


async def test_range_is_stripped(service: Service) -> None:
    assert (await ask(service, proxy_faults.strip_range, RANGE)).body == FILM


async def test_range_is_shifted(service: Service) -> None:
    answer = await ask(service, proxy_faults.shift_range, RANGE)
    assert answer.status == 206
    assert not answer.headers["Content-Range"].startswith("bytes 1000-")


async def test_refusals_have_a_retry_after_or_none(service: Service) -> None:
    answers = [await ask(service, proxy_faults.refuse, seed=seed) for seed in range(30)]
    assert {answer.status for answer in answers} == {408, 429, 500, 502, 503, 504}
    assert {answer.headers.get("Retry-After", "")[:1] for answer in answers} == {"", "0", "M"}


async def test_pages_instead_of_files(service: Service) -> None:
    assert (await ask(service, proxy_faults.show_page)).body == proxy_faults.PAGE
    answer = await ask(service, proxy_faults.repeat_page_as_range, RANGE)
    assert (answer.status, len(answer.body)) == (206, 1000)
    assert answer.body.startswith(b"<!doctype")


@pytest.mark.parametrize("fault", [proxy_faults.cut_before_request, proxy_faults.cut_before_response])
async def test_connections_are_cut_before_the_response(service: Service, fault: Fault) -> None:
    with pytest.raises(IncompleteAnswer) as caught:
        await ask(service, fault)
    assert caught.value.answer is None


@pytest.mark.parametrize("fault", [proxy_faults.cut_body, proxy_faults.close_early])
async def test_bodies_end_before_their_length(service: Service, fault: Fault) -> None:
    with pytest.raises(IncompleteAnswer) as caught:
        await ask(service, fault)
    assert caught.value.answer is not None
    assert FILM.startswith(caught.value.answer.body)


async def test_idle_connection_is_closed_without_announcement(service: Service) -> None:
    async with through(service, proxy_faults.cut_idle) as link:
        answer = await link.ask("GET", TARGET, token=service.token)
        assert "Connection" not in answer.headers
        assert await link.ended()


async def test_delayed_body_is_whole(service: Service) -> None:
    assert (await ask(service, proxy_faults.delay)).body == FILM


async def test_stalled_body_ends_late(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_pieces, "STALL_S", 0.01)
    with pytest.raises(IncompleteAnswer):
        await ask(service, proxy_faults.stall)


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        (proxy_faults.strip_etag, "ETag"),
        (proxy_faults.strip_content_range, "Content-Range"),
        (proxy_faults.strip_digest, "Repr-Digest"),
    ],
)
async def test_header_fields_are_stripped(service: Service, fault: Fault, field: str) -> None:
    answer = await ask(service, fault, RANGE)
    assert field not in answer.headers
    assert answer.body == FILM[1000:2000]


@pytest.mark.parametrize("fault", [proxy_faults.weaken_etag, proxy_faults.rename_etag])
async def test_etag_is_changed(service: Service, fault: Fault) -> None:
    tag = (await service.get(TARGET)).headers["ETag"]
    assert (await ask(service, fault)).headers["ETag"] != tag


async def test_content_range_is_wrong(service: Service) -> None:
    for seed in range(10):
        answer = await ask(service, proxy_faults.wrong_content_range, RANGE, seed=seed)
        assert answer.body == FILM[1000:2000]
        assert answer.headers["Content-Range"] != f"bytes 1000-1999/{len(FILM)}"


async def read_unframed(service: Service, fault: Fault, seed: int) -> bytes:
    """Read a body that is framed by chunks, a length, or the end of the connection; without its head."""
    async with through(service, fault, seed=seed) as link:
        link.send(
            f"GET {TARGET} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {service.token}\r\n\r\n".encode()
        )
        _, _, headers = await link.head()
        if "Content-Length" in headers:
            return await link.read(int(headers["Content-Length"]))
        if "Transfer-Encoding" not in headers:
            return await link.read(1 << 30)
        body = b""
        while size := int(await link.reader.readuntil(b"\r\n"), 16):
            body += await link.reader.readexactly(size)
            await link.reader.readexactly(2)
        return body


@pytest.mark.parametrize(
    ("fault", "is_expected"),
    [
        (proxy_faults.strip_length, lambda body: body == FILM),
        (proxy_faults.end_early, lambda body: body != FILM and FILM.startswith(body)),
        (proxy_faults.append_bytes, lambda body: body.startswith(FILM)),
    ],
)
async def test_bodies_with_another_length(
    service: Service, fault: Fault, is_expected: Callable[[bytes], bool]
) -> None:
    bodies = [await read_unframed(service, fault, seed) for seed in range(8)]
    assert all(map(is_expected, bodies))
    assert fault is not proxy_faults.append_bytes or any(len(body) > len(FILM) for body in bodies)


async def test_byte_of_a_file_is_flipped(service: Service) -> None:
    body = (await ask(service, proxy_faults.flip_byte)).body
    assert len(body) == len(FILM)
    assert sum(one != other for one, other in zip(body, FILM, strict=True)) == 1


async def test_body_is_compressed(service: Service) -> None:
    answer = await ask(service, proxy_faults.compress)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(answer.body) == FILM


@pytest.mark.parametrize(
    ("fault", "statuses"), [(proxy_faults.replace_before, [412]), (proxy_faults.replace_meanwhile, [200])]
)
async def test_file_is_replaced(
    service: Service, make_job: MakeJob, fault: Fault, statuses: list[int]
) -> None:
    async def replace() -> None:
        make_job(output=FILM[::-1])

    tag = (await service.get(TARGET)).headers["ETag"].strip('"')
    proxy = FaultyProxy(service.port, always=[fault], replace_output=replace)
    async with faulty_proxy(proxy), connection(proxy.port) as link:
        answer = await link.ask("GET", f"{TARGET}?version={tag}", token=service.token)
    assert [answer.status] == statuses
    assert (await service.get(TARGET)).body == FILM[::-1]
