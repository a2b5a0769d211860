"""An unknown query parameter is a 400 on every API route, and a parameter may occur only once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.clients.raw_http import concrete, request
from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import Service

JOB = "/api/jobs/job-1"
STREAMS = ("/api/events", f"{JOB}/events", f"{JOB}/logs?follow=1")


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=b"film", log=b"one\ntwo\nthree\n")
    make_job("job-2", status="rendering")
    return await serve()


async def described(service: Service) -> list[tuple[str, str, set[str]]]:
    """Yield method, URL and query parameters of each operation below /api."""
    document = (await service.get("/api/openapi.json")).json()
    parameters = document["components"]["parameters"]
    links = document["components"]["securitySchemes"].values()

    def names(path: str, item: dict[str, Any]) -> set[str]:
        known = (parameters[each["$ref"].rpartition("/")[2]] for each in item.get("parameters", []))
        by_link = path.endswith(("/download", "/download/{name}")) or "/files/" in path or "/archive." in path
        in_links = {each["name"] for each in links if each["type"] == "apiKey" and by_link}
        return in_links | {each["name"] for each in known if each["in"] == "query"}

    return [
        (method.upper(), concrete(path), names(path, item))
        for path, item in document["paths"].items()
        if path.startswith("/api")
        for method in item.keys() - {"parameters"}
    ]


async def test_unknown_parameter_is_refused_and_known_ones_are_listed_on_every_route(
    service: Service,
) -> None:
    for method, target, known in await described(service):
        answer = await service.ask(method, f"{target}?wiat=1")
        assert answer.status == 400, (method, target)
        if method != "HEAD":
            assert answer.code == "bad-request"
            problem, _, named = answer.json()["detail"].removesuffix(".").partition(". Supported here: ")
            assert problem == "Unknown query parameter 'wiat'"
            assert set(named.split(", ")) == (known or {"none"})


@pytest.mark.parametrize(
    "query",
    ["_=1", "Wait=1", "wait%20=1", "w%61it=0&x", "?wait=0", "lastEventId=x", "follow=1", "%00=1", "\u2028=1"],
)
async def test_parameter_of_another_route_or_spelling_is_unknown(service: Service, query: str) -> None:
    answer = await service.get(f"{JOB}?{query}")
    assert (answer.status, answer.code) == (400, "bad-request")


@pytest.mark.parametrize("query", ["", "&", "&&wait=0", "w%61it=0", "wait=0&"])
async def test_query_without_unknown_parameters_is_accepted(service: Service, query: str) -> None:
    assert (await service.get(f"{JOB}?{query}")).status == 200


@pytest.mark.parametrize(
    "target",
    [
        f"{JOB}?wait=1&wait=1",
        "/api/jobs?limit=1&limit=2",
        "/api/jobs?cursor=&cursor=",
        f"{JOB}/logs?tail=1&tail=1",
        f"{JOB}/logs?follow=1&follow=1",
        "/api/events?lastEventId=a&lastEventId=b",
        f"{JOB}/events?lastEventId=a&lastEventId=a",
        f"{JOB}/logs?follow=1&lastEventId=a&lastEventId=a",
    ],
)
async def test_repeated_parameter_is_refused_by_name(service: Service, target: str) -> None:
    answer = await service.get(target)
    assert (answer.status, answer.code) == (400, "bad-request")
    assert "is given more than once" in answer.json()["detail"]


@pytest.mark.parametrize(
    "target",
    [
        f"{JOB}?wait=",
        f"{JOB}?wait",
        "/api/jobs?limit=",
        "/api/jobs?status=",
        "/api/jobs?updatedSince=",
        "/api/jobs?cursor=",
        "/api/events?status=",
        f"{JOB}/logs?tail=",
        f"{JOB}/logs?follow=",
        f"{JOB}/logs?base64=",
    ],
)
async def test_empty_value_is_refused_by_the_name_of_its_parameter(service: Service, target: str) -> None:
    answer = await service.get(target)
    assert (answer.status, answer.code) == (400, "bad-request")
    assert answer.json()["detail"].startswith(target.partition("?")[2].removesuffix("="))


async def test_unauthorized_request_learns_no_parameter_names(service: Service) -> None:
    assert (await service.get(f"{JOB}?wiat=1", token=None)).status == 401


async def test_unknown_parameter_counts_against_the_budget(serve: Serve, make_job: MakeJob) -> None:
    make_job()
    service = await serve(limit_status="2/minute")
    statuses = [(await service.get(f"{JOB}?wiat=1")).status for _ in range(3)]
    assert statuses == [400, 400, 429]


async def test_health_probes_accept_any_parameter(service: Service) -> None:
    for _ in range(1000):
        if (await service.get("/readyz", token=None)).status == 200:
            break
        await asyncio.sleep(0.01)
    for target in ("/healthz?_=1", "/readyz?cachebust=2", "/metrics?x"):
        assert (await service.get(target, token=None)).status == 200


async def read_until(service: Service, target: str, end: bytes, *fields: tuple[str, str]) -> bytes:
    """Read a stream up to these bytes."""
    async with service.connect() as link:
        link.send(request("GET", target, fields, token=service.token))
        _, status, _ = await link.head()
        assert status == 200
        return await link.reader.readuntil(end)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def with_last_id(target: str, last: str) -> str:
    return f"{target}{'&' if '?' in target else '?'}lastEventId={last}"


def last_id(data: bytes) -> str:
    return data.rpartition(b"\nid: ")[2].partition(b"\n")[0].decode()


async def test_log_continues_after_the_last_event_id_of_the_query(
    service: Service, make_job: MakeJob
) -> None:
    folder = make_job("job-2", status="rendering", log=b"one\ntwo\n")
    target = "/api/jobs/job-2/logs?follow=1"
    last = last_id(await read_until(service, target, b"data: two\n\n"))
    append(folder / "render.log", b"three\n")
    rest = await read_until(service, with_last_id(target, last), b"data: three\n\n")
    assert b"data: one" not in rest
    assert b"data: two" not in rest


async def test_all_events_continue_after_the_last_event_id_of_the_query(service: Service) -> None:
    target = "/api/events?status=rendering"
    last = last_id(await read_until(service, target, b'data: {"jobs":1}\n\n'))
    async with service.connect() as link:
        link.send(request("GET", with_last_id(target, last), token=service.token))
        assert (await link.head())[1] == 200
        assert b"event" not in await link.reader.readuntil(b"\n\n")


@pytest.mark.parametrize("target", [f"{JOB}/events", f"{JOB}/logs?follow=1"])
async def test_finished_stream_is_204_with_the_query_parameter(service: Service, target: str) -> None:
    async with service.connect() as link:
        link.send(request("GET", target, token=service.token))
        await link.head()
        last = last_id(await link.reader.read())
    assert (await service.get(with_last_id(target, last))).status == 204


async def test_the_header_takes_precedence_over_the_query(service: Service) -> None:
    target = f"{JOB}/events"
    async with service.connect() as link:
        link.send(request("GET", target, token=service.token))
        await link.head()
        last = last_id(await link.reader.read())

    async def status(query: str, header: str) -> int:
        async with service.connect() as link:
            link.send(request("GET", query, [("Last-Event-ID", header)], token=service.token))
            return (await link.head())[1]

    assert await status(with_last_id(target, "other"), last) == 204
    assert await status(with_last_id(target, last), "other") == 200


@pytest.mark.parametrize("target", STREAMS)
async def test_empty_last_event_id_is_ignored(service: Service, target: str) -> None:
    assert b"retry" in await read_until(service, with_last_id(target, ""), b"\n\n")


async def test_log_that_is_not_followed_ignores_the_last_event_id(service: Service) -> None:
    assert (await service.get(f"{JOB}/logs?tail=1&lastEventId=x")).body == b"three\n"
