"""The document and the files of the web page, over a socket."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

import jobsvc.web.page
from jobsvc.web.endpoints.page import CONTENT_TYPES
from tests.clients.raw_http import Answer, Connection
from tests.conftest import Serve
from tests.programs.service_runner import Service

FOLDER: Final = Path(jobsvc.web.page.__file__).parent
FILES: Final = sorted(
    path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in CONTENT_TYPES
)
POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob:",
    "media-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "jobsvc",
}
"""Content-Security-Policy, as the design has it."""


async def version_of(service: Service) -> str:
    """Return the version in the document."""
    (version,) = set(re.findall(r'"ui/([^/]*)/', (await service.get("/", token=None)).body.decode()))
    return str(version)


def policy_of(answer: Answer) -> dict[str, str]:
    directives = answer.headers["Content-Security-Policy"].split("; ")
    return {name: value for name, _, value in (each.partition(" ") for each in directives)}


def with_request(answer: Answer) -> dict[str, str]:
    """Return the fields that do not depend on the request."""
    return {name: value for name, value in answer.headers.items() if name not in {"X-Request-Id", "Date"}}


async def test_document_is_for_everyone_and_checked_at_each_visit(serve: Serve) -> None:
    answer = await (await serve()).get("/", token=None)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["ETag"].startswith('"')
    assert "Set-Cookie" not in answer.headers
    assert policy_of(answer) == POLICY
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_document_has_no_script_style_or_url_of_elsewhere(serve: Serve) -> None:
    text = (await (await serve()).get("/", token=None)).body.decode()
    assert "{" not in text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|//|<base", text)
    assert re.findall(r"<script[^>]*>(.*?)</script>", text) == [""]
    assert re.findall(r'(?:src|href)="((?!ui/)[^"]*)"', text) == []


async def test_query_of_the_document_is_the_business_of_the_page(serve: Serve) -> None:
    service = await serve()
    plain = await service.get("/", token=None)
    for query in ("?job=a%00b&view=log", "?status=failed&q=%3Cscript%3E", "?%ff"):
        answer = await service.get(f"/{query}", token=None)
        assert (answer.status, answer.body) == (200, plain.body)


async def test_each_file_is_served_as_it_is_and_kept(serve: Serve) -> None:
    service = await serve()
    version = await version_of(service)
    assert "main.js" in FILES
    async with service.connect() as link:
        for path in FILES:
            answer = await link.ask("GET", f"/ui/{version}/{path}")
            assert answer.body == (FOLDER / path).read_bytes()
            assert answer.headers["Content-Type"] == CONTENT_TYPES[Path(path).suffix]
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert policy_of(answer) == POLICY
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


async def test_document_links_to_all_styles_and_to_the_modules_of_the_list(serve: Serve) -> None:
    service = await serve()
    text = (await service.get("/", token=None)).body.decode()
    linked = set(re.findall(r'(?:src|href)="ui/[0-9a-f]{12}/([^"]*)"', text))
    assert linked == {path for path in FILES if not re.fullmatch(r"(job|log)/.*\.m?js", path)}


async def test_file_of_another_version_is_the_current_one_and_not_kept(serve: Serve) -> None:
    answer = await (await serve()).get("/ui/000000000000/main.js", token=None)
    assert answer.body == (FOLDER / "main.js").read_bytes()
    assert answer.headers["Cache-Control"] == "no-cache"


async def test_version_is_the_same_for_all_replicas(serve: Serve) -> None:
    one, other = await serve(), await serve()
    assert await version_of(one) == await version_of(other)


@pytest.mark.parametrize("target", ["/", "/ui/x/main.js"])
async def test_unchanged_page_is_a_304_with_the_same_fields(serve: Serve, target: str) -> None:
    service = await serve()
    first = await service.get(target, token=None)
    async with service.connect() as link:
        for method in ("GET", "HEAD"):
            answer = await link.ask(method, target, [("If-None-Match", first.headers["ETag"])])
            assert (answer.status, answer.body) == (304, b"")
            missing = {"Content-Length", "Content-Type"}
            assert with_request(answer) == {
                name: value for name, value in with_request(first).items() if name not in missing
            }
    changed = await service.get(target, ("If-None-Match", '"other"'), token=None)
    assert (changed.status, changed.body) == (200, first.body)


@pytest.mark.parametrize("target", ["/", "/?job=1", "/ui/x/base.css"])
async def test_head_has_the_fields_of_get(serve: Serve, target: str) -> None:
    service = await serve()
    get, head = [await service.ask(method, target, token=None) for method in ("GET", "HEAD")]
    assert (head.status, head.body, with_request(head)) == (200, b"", with_request(get))


@pytest.mark.parametrize("target", ["/", "/ui/x/main.js"])
async def test_other_methods_are_405(serve: Serve, target: str) -> None:
    service = await serve()
    async with service.connect() as link:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = await link.ask(method, target)
            assert (answer.status, answer.code) == (405, "method-not-allowed")
            assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD"}


NOTHING: Final = (
    "/ui",
    "/ui/",
    "/ui/x",
    "/ui/x/",
    "/ui//main.js",
    "/ui/x//main.js",
    "/ui/x/main",
    "/ui/x/MAIN.JS",
    "/ui/x/index.html",
    "/ui/x/__init__.py",
    "/ui/x/package.json",
    "/ui/x/vendor",
    "/ui/x/vendor/sources.json",
    "/ui/x/vendor/htm.LICENSE",
    "/ui/x/../page.py",
    "/ui/x/..%2fpage.py",
    "/ui/x/%2e%2e/endpoints/page.py",
    "/ui/x/%2fetc/passwd",
    "/ui/x/main.js%00",
    "/ui/x/main.js%0a",
    "/ui/x/main.js/",
    "/ui/x/%ff",
    "/ui/x/a/" + "b/" * 300,
    "//ui/x/main.js",
    "/index.html",
    "/favicon.ico",
)


async def test_nothing_else_is_served(serve: Serve) -> None:
    service = await serve()
    async with service.connect() as link:
        for target in NOTHING:
            await assert_not_found(link, target)


async def assert_not_found(link: Connection, target: str) -> None:
    answer = await link.ask("GET", target)
    assert (answer.status, answer.code) == (404, "not-found"), target
    assert answer.headers["Cache-Control"] == "no-store"


async def test_unknown_parameter_of_a_file_is_refused(serve: Serve) -> None:
    assert (await (await serve()).get("/ui/x/main.js?v=1", token=None)).code == "bad-request"


async def test_page_needs_no_token_and_counts_no_wrong_one(serve: Serve) -> None:
    service = await serve(limit_auth_failures="1/day")
    for _ in range(3):
        assert (await service.get("/", ("Cookie", "jobsvc=junk"), token="jsvc_" + "x" * 43)).status == 200
    assert (await service.get("/api/me", token="jsvc_" + "x" * 43)).status == 401
