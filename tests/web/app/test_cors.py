"""With --cors-origin, a browser lets pages of these origins read every response; without it, of none."""

from __future__ import annotations

from typing import Final

import pytest

from jobsvc.web.headers import cors
from tests.checks.fast_path import comparable, warm_up
from tests.clients.raw_http import Answer
from tests.clients.sse_client import open_event_stream
from tests.conftest import MakeJob, Serve
from tests.eventually import until_equal
from tests.programs.service_runner import Service

PORTAL: Final = "https://portal.example.com"
OTHER: Final = "http://localhost:3000"
STATUS: Final = "/api/jobs/job-1"
DOWNLOAD: Final = f"{STATUS}/download"
FILM: Final = bytes(range(256)) * 256
PREFLIGHT: Final = (
    ("Origin", PORTAL),
    ("Access-Control-Request-Method", "GET"),
    ("Access-Control-Request-Headers", "authorization, range"),
)
ALLOWED: Final = {
    "Vary": "Origin",
    "Access-Control-Allow-Origin": PORTAL,
    "Access-Control-Expose-Headers": ", ".join(cors.RESPONSE_FIELDS),
}
REFUSED_ORIGINS: Final = (
    *("null", "*", "https://portal.example.com.evil.example", "https://portal.example.com:443", ""),
    *(
        "http://portal.example.com",
        "HTTPS://PORTAL.EXAMPLE.COM",
        f"{PORTAL}/",
        f"{PORTAL}, {OTHER}",
        "https://",
    ),
)


@pytest.fixture
async def service(treat_new_files_as_stable: None, serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=FILM, log=b"a line\n")
    service = await serve(cors_origins=(PORTAL, OTHER))
    await until_equal(lambda: status_of(service, "/api/jobs"), 200)  # 503 until the jobs have been read
    return service


async def status_of(service: Service, target: str) -> int:
    return (await service.get(target)).status


def cors_fields(answer: Answer) -> dict[str, str]:
    """Return the fields of a response that CORS needs; fails if one is repeated."""
    found = [(name, value) for name, value in answer.headers.items() if is_cors_field(name)]
    assert len(dict(found)) == len(found)
    return dict(found)


def is_cors_field(name: str) -> bool:
    return name == "Vary" or name.startswith("Access-Control-")


@pytest.mark.parametrize(
    ("target", "fields", "status"),
    [
        (STATUS, (), 200),
        (f"{STATUS}?wait=0", (), 200),
        (STATUS, (("If-None-Match", "*"),), 304),
        (STATUS, (("If-Match", '"other"'),), 412),
        (DOWNLOAD, (), 200),
        (DOWNLOAD, (("Range", "bytes=5-9"),), 206),
        (DOWNLOAD, (("Range", "bytes=0-1,5-9"),), 206),
        (DOWNLOAD, (("Range", "bytes=999999-"),), 416),
        (DOWNLOAD, (("If-None-Match", "*"),), 304),
        (DOWNLOAD, (("If-Match", '"other"'),), 412),
        (f"{DOWNLOAD}?version={'A' * 22}", (), 412),
        (f"{STATUS}/files", (), 200),
        (f"{STATUS}/files/main/film.mp4", (("Range", "bytes=5-9"),), 206),
        (f"{STATUS}/archive.tar", (("Range", "bytes=5-9"),), 206),
        (f"{STATUS}/logs?tail=1", (), 200),
        ("/api/jobs", (), 200),
        ("/api/jobs?unknown=1", (), 400),
        ("/api/me", (), 200),
        ("/api/openapi.json", (), 200),
        ("/api/jobs/other-job", (), 404),
        ("/api/nowhere", (), 404),
        (f"{STATUS}/download-links", (), 405),
        (STATUS, (("Expect", "something"),), 417),
    ],
)
async def test_every_response_of_the_api_can_be_read_by_an_allowed_origin(
    service: Service, target: str, fields: tuple[tuple[str, str], ...], status: int
) -> None:
    async with service.connect() as link:
        for _ in range(3):  # the last times, everything that the fast path needs is cached
            answer = await link.ask("GET", target, (("Origin", PORTAL), *fields), token=service.token)
            assert (answer.status, cors_fields(answer)) == (status, ALLOWED)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_head_and_http_1_0_have_the_fields_too(service: Service, version: str) -> None:
    async with service.connect() as link:
        fields = [("Origin", OTHER), ("Authorization", f"Bearer {service.token}"), ("Host", "a.example")]
        lines = [f"HEAD {DOWNLOAD} HTTP/{version}", *(f"{name}: {value}" for name, value in fields), "", ""]
        link.send("\r\n".join(lines).encode())
        answer = await link.answer("HEAD")
    assert cors_fields(answer) == ALLOWED | {"Access-Control-Allow-Origin": OTHER}


async def test_missing_token_is_a_401_that_the_page_can_read(service: Service) -> None:
    answer = await service.get(STATUS, ("Origin", PORTAL), token=None)
    assert (answer.code, cors_fields(answer)) == ("unauthorized", ALLOWED)


async def test_used_budget_is_a_429_whose_retry_after_the_page_can_read(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job()
    service = await serve(cors_origins=(PORTAL,), limit_status="1/minute")
    await service.get(STATUS)
    answer = await service.get(STATUS, ("Origin", PORTAL))
    assert (answer.status, cors_fields(answer)) == (429, ALLOWED)
    assert {"Retry-After", "RateLimit"} <= answer.headers.keys() & set(cors.RESPONSE_FIELDS)


async def test_created_link_can_be_read_and_followed_without_a_token(service: Service) -> None:
    answer = await service.ask("POST", f"{STATUS}/download-links", [("Origin", PORTAL)])
    assert (answer.status, cors_fields(answer)) == (201, ALLOWED)
    film = await service.get(answer.json()["url"], ("Origin", PORTAL), token=None)
    assert (film.body, cors_fields(film)) == (FILM, ALLOWED)


@pytest.mark.parametrize(
    "target", ["/api/events", f"{STATUS}/events", f"{STATUS}/logs?follow=1"], ids=["jobs", "job", "log"]
)
async def test_event_streams_can_be_read(service: Service, target: str) -> None:
    async with open_event_stream(service, target, [("Origin", PORTAL)]) as stream:
        assert {name: stream.headers[name] for name in stream.headers if is_cors_field(name)} == ALLOWED
        assert await stream.next() is not None


@pytest.mark.parametrize("origin", REFUSED_ORIGINS)
async def test_other_origins_get_the_response_but_their_pages_cannot_read_it(
    service: Service, origin: str
) -> None:
    for target in (STATUS, DOWNLOAD, "/api/nowhere"):
        answer = await service.get(target, ("Origin", origin))
        assert cors_fields(answer) == {"Vary": "Origin"}


async def test_two_origins_in_a_request_count_as_none(service: Service) -> None:
    answer = await service.get(STATUS, ("Origin", PORTAL), ("Origin", PORTAL))
    assert cors_fields(answer) == {"Vary": "Origin"}


@pytest.mark.parametrize(
    ("target", "fields"), [(STATUS, ()), (DOWNLOAD, (("Range", "bytes=5-9"),)), (f"{STATUS}/files/main", ())]
)
async def test_response_without_an_origin_varies_with_it_on_the_fast_path_and_beside_it(
    service: Service, target: str, fields: tuple[tuple[str, str], ...]
) -> None:
    """A browser's cache may keep a response to the page of the service, and must not give it to others."""
    async with service.connect() as link:
        await warm_up(link, service, target, fields)
        fast = await link.ask("GET", target, fields, token=service.token)
        general = await link.ask("GET", target, (*fields, ("Origin", "null")), token=service.token)
    assert cors_fields(fast) == {"Vary": "Origin"}
    assert comparable(fast) == comparable(general)


@pytest.mark.parametrize("target", ["/", "/healthz", "/metrics", "/nowhere", "/apiary"])
async def test_only_the_api_is_for_other_origins(service: Service, target: str) -> None:
    assert cors_fields(await service.get(target, ("Origin", PORTAL))) == {}
    assert cors_fields(await service.ask("OPTIONS", target, PREFLIGHT)) == {}


@pytest.mark.parametrize("target", [STATUS, DOWNLOAD, "/api/events", "/api/nowhere"])
async def test_preflight_is_answered_without_a_token_or_a_budget(service: Service, target: str) -> None:
    async with service.connect() as link:
        for _ in range(2):
            answer = await link.ask("OPTIONS", target, PREFLIGHT)
            assert (answer.status, answer.body) == (204, b"")
            assert cors_fields(answer) == ALLOWED | {
                "Access-Control-Allow-Methods": "GET, HEAD, POST",
                "Access-Control-Allow-Headers": ", ".join(cors.REQUEST_FIELDS),
                "Access-Control-Max-Age": "7200",
            }
            assert answer.headers.keys().isdisjoint({"RateLimit", "Content-Length", "Set-Cookie"})


async def test_preflights_are_counted_under_one_route(service: Service) -> None:
    await service.ask("OPTIONS", "/api/nowhere", PREFLIGHT)
    await service.ask("OPTIONS", STATUS, PREFLIGHT)
    name = 'jobsvc_requests_total{code="204",method="OPTIONS",route="preflight"}'
    assert await service.metric(name) == 2


@pytest.mark.parametrize(
    "fields",
    [PREFLIGHT[:1], PREFLIGHT[1:], (("Origin", "https://evil.example"), *PREFLIGHT[1:])],
    ids=["no method", "no origin", "other origin"],
)
async def test_options_request_that_is_no_preflight_of_an_allowed_origin_is_405(
    service: Service, fields: tuple[tuple[str, str], ...]
) -> None:
    answer = await service.ask("OPTIONS", STATUS, fields)
    assert answer.code == "method-not-allowed"
    assert not any(name.startswith("Access-Control-Allow-M") for name in answer.headers)


async def test_credentials_are_never_allowed(service: Service) -> None:
    for method, fields in (("OPTIONS", PREFLIGHT), ("GET", PREFLIGHT[:1])):
        answer = await service.ask(method, STATUS, (*fields, ("Cookie", "jobsvc=abc")))
        assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_without_the_option_no_response_has_a_field(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    service = await serve()
    for target in (STATUS, DOWNLOAD, "/api/jobs", "/api/nowhere"):
        assert cors_fields(await service.get(target)) == {}
        assert cors_fields(await service.get(target, ("Origin", PORTAL))) == {}
        assert cors_fields(await service.ask("OPTIONS", target, PREFLIGHT)) == {}
    assert (await service.ask("OPTIONS", STATUS, PREFLIGHT)).code == "method-not-allowed"


async def test_full_service_refuses_with_a_503_that_the_page_can_read(
    serve: Serve, make_job: MakeJob
) -> None:
    make_job()
    service = await serve(cors_origins=(PORTAL,), max_connections=1)
    async with service.connect() as busy:
        busy.send(b"GET /api/jobs/job-1?wait=50 HTTP/1.1\r\nHost: a.example\r\n")
        busy.send(f"Authorization: Bearer {service.token}\r\n\r\n".encode())
        answers = [
            await service.get(STATUS, ("Origin", PORTAL)),
            await service.ask("OPTIONS", STATUS, PREFLIGHT),
        ]
    assert [(each.status, cors_fields(each)) for each in answers] == [(503, ALLOWED)] * 2
