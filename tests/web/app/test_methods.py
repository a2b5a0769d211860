"""Methods on each URL: HEAD wherever GET is allowed, 405 for every other HTTP method."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.raw_http import concrete
from tests.conftest import MakeJob, Serve
from tests.programs.service_runner import Service

ALLOWED = ("GET", "HEAD", "POST", "DELETE")
OTHERS = (
    *("PUT", "OPTIONS", "TRACE", "PATCH", "QUERY"),
    *(
        "COPY",
        "LOCK",
        "MKCOL",
        "MOVE",
        "PROPFIND",
        "PROPPATCH",
        "SEARCH",
        "UNLOCK",
        "BIND",
        "REBIND",
        "UNBIND",
    ),
    *("ACL", "REPORT", "MKACTIVITY", "CHECKOUT", "MERGE", "MKCALENDAR", "LINK", "UNLINK", "PURGE"),
    *("M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "SOURCE"),
)
"""Every other method that the parser knows and that takes a path as its target."""
UNKNOWN = ("FOO", "X", "get", "Get", "GETT", "GE", "PATCHES", "G-E-T", "!#$%&'*+-.^_`|~", "A" * 5000)
"""Words that the parser refuses before it has read the target, so that there is no Allow field."""
OF_OTHERS = ("PRI", "DESCRIBE", "SETUP", "PLAY", "PAUSE", "TEARDOWN")
"""Words that the parser knows from other protocols, whose version would have to be named."""


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=b"film")
    return await serve()


async def described(service: Service) -> Iterator[tuple[str, set[str]]]:
    """Return each URL of the OpenAPI document and the methods it allows."""
    document = (await service.get("/api/openapi.json")).json()
    return (
        (concrete(path), {name for name in ALLOWED if name.lower() in operations})
        for path, operations in document["paths"].items()
    )


async def test_other_methods_are_405_with_allow_and_the_connection_stays_open(
    service: Service,
) -> None:
    async with service.connect() as link:
        for target, allowed in await described(service):
            assert allowed in ({"GET", "HEAD"}, {"POST"}, {"POST", "DELETE"}), target
            for method in (*OTHERS, *(set(ALLOWED) - allowed)):
                answer = await link.ask(method, target, token=service.token)
                assert answer.status == 405, (method, target)
                assert method == "HEAD" or answer.code == "method-not-allowed"
                assert set(answer.headers["Allow"].replace(" ", "").split(",")) == allowed
                assert "RateLimit" not in answer.headers


async def test_unknown_url_is_404_for_every_method(service: Service) -> None:
    async with service.connect() as link:
        for method in (*ALLOWED, *OTHERS):
            answer = await link.ask(method, "/nowhere", token=service.token)
            assert answer.status == 404
            assert "Allow" not in answer.headers


@pytest.mark.parametrize(
    ("method", "status"),
    [*((word, 501) for word in UNKNOWN), *((word, 400) for word in OF_OTHERS)],
    ids=lambda value: str(value)[:12],
)
async def test_unknown_method_is_501_and_closes_the_connection(
    service: Service, method: str, status: int
) -> None:
    """Section 9.1 of RFC 9110: 501 for a method that the server does not know at all."""
    async with service.connect() as link:
        answer = await link.ask(method, "/healthz")
        assert (answer.status, answer.code) == (status, "bad-request")
        assert await link.ended()


async def test_target_that_is_not_a_path_is_404_and_the_connection_stays_open(service: Service) -> None:
    async with service.connect() as link:
        answer = await link.ask("OPTIONS", "*", token=service.token)
        assert (answer.status, answer.code) == (404, "not-found")
        assert (await link.ask("GET", "/healthz")).body == b"ok\n"


@pytest.mark.parametrize("target", ["ftp://a.example/healthz", "hitp://a.example/healthz", "*"])
async def test_target_with_another_scheme_is_refused(service: Service, target: str) -> None:
    """Section 7.4 of RFC 9110: the service is not the origin of such a target."""
    answer = await service.get(target)
    assert (answer.status, answer.code) == (400, "bad-request")


@pytest.mark.parametrize("body", [b"", b"a body"], ids=["", "with a body"])
async def test_trace_does_not_echo_the_request(service: Service, body: bytes) -> None:
    answer = await service.ask("TRACE", "/healthz", [("X-Secret", "sesame")], body=body)
    assert answer.status == 405
    assert b"sesame" not in answer.body
