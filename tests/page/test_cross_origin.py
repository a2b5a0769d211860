"""A page of another origin uses the API with --cors-origin, in Chromium, which decides what it may read."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urljoin

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer
from playwright.async_api import Browser, Error, Page

from tests.conftest import MakeJob, Serve
from tests.eventually import until
from tests.page.browser_context import DESKTOP, new_context, sign_in
from tests.programs.service_runner import PROJECT, Service

FILM: Final = bytes(range(256)) * 16
API: Final = (PROJECT / "docs/api.md").read_text("utf-8")

SEND: Final = """async ([url, options]) => {
  const response = await fetch(url, options);
  return [response.status, Object.fromEntries(response.headers), await response.text()];
}"""
FIRST_EVENT: Final = """async ([url, options]) => {
  const reader = (await fetch(url, options)).body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("event: job")) text += (await reader.read()).value;
  await reader.cancel();
  return text;
}"""


@pytest.fixture
async def portal() -> AsyncIterator[BaseTestServer]:
    """Serve an empty page at a host other than the service's."""

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>Portal</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    async with TestServer(app) as server:
        yield server


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob, portal: BaseTestServer) -> Service:
    make_job(output=FILM)
    return await serve(cors_origins=[f"http://{host}:{portal.port}" for host in ("localhost", "127.0.0.1")])


@pytest.fixture
async def page(browser: Browser, service: Service, portal: BaseTestServer) -> AsyncIterator[Page]:
    async with new_context(browser, service.port, None, DESKTOP, []) as context:
        page = await context.new_page()
        await page.goto(f"http://localhost:{portal.port}/")
        yield page


async def send(page: Page, service: Service, path: str, **fields: str) -> Any:
    """Send a request with the token from the page; return status, the fields that it may read, and body."""
    headers = {"Authorization": f"Bearer {service.token}", **fields}
    return await page.evaluate(SEND, [url_of(service, path), {"headers": headers}])


def url_of(service: Service, path: str) -> str:
    return f"http://127.0.0.1:{service.port}/api/jobs/{path}"


async def test_page_reads_a_job_its_version_and_that_it_is_unchanged(page: Page, service: Service) -> None:
    status, fields, body = await send(page, service, "job-1")
    assert (status, '"status":"completed"' in body) == (200, True)
    assert {"etag", "ratelimit", "age", "x-request-id"} <= fields.keys()
    assert "server" not in fields
    status, _, body = await send(page, service, "job-1", **{"If-None-Match": fields["etag"]})
    assert (status, body) == (304, "")


async def test_page_resumes_a_download_by_a_range(page: Page, service: Service) -> None:
    path = "job-1/download"
    _, fields, _ = await send(page, service, path, Range="bytes=0-9")
    status, fields, body = await send(
        page, service, path, Range="bytes=65-69", **{"If-Range": fields["etag"]}
    )
    assert (status, fields["content-range"], body) == (206, f"bytes 65-69/{len(FILM)}", "ABCDE")


async def test_page_reads_why_a_request_failed(page: Page, service: Service) -> None:
    status, _, body = await send(page, service, "another")
    assert (status, '"code":"job-not-found"' in body) == (404, True)
    status, _, body = await send(page, service, "job-1", Authorization="Bearer wrong")
    assert (status, '"code":"unauthorized"' in body) == (401, True)


async def test_page_creates_a_link_and_follows_it_without_a_token(page: Page, service: Service) -> None:
    options = {
        "method": "POST",
        "headers": {"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"},
        "body": '{"expiresIn": 60}',
    }
    url = url_of(service, "job-1/download-links")
    status, _, body = await page.evaluate(SEND, [url, options])
    assert status == 201
    status, fields, _ = await page.evaluate(SEND, [urljoin(url, json.loads(body)["url"]), {}])
    assert (status, fields["content-disposition"]) == (200, 'attachment; filename="film.mp4"')


async def test_page_reads_an_event_stream_as_it_is_sent(page: Page, service: Service) -> None:
    headers = {"Authorization": f"Bearer {service.token}", "Last-Event-ID": "unknown"}
    text = await page.evaluate(FIRST_EVENT, [url_of(service, "../events"), {"headers": headers}])
    assert '"id":"job-1"' in text


async def test_program_of_the_documents_prints_a_range_and_events(
    page: Page, service: Service, make_job: MakeJob
) -> None:
    make_job("opening-title-0042", output=FILM)
    printed: list[str] = []
    page.on("console", lambda message: printed.extend([message.text] * (message.type == "log")))
    program = re.findall(r"```js\n(const api = .*?)```", API, re.DOTALL)[0]
    program = program.replace("https://render.example.com/", f"http://127.0.0.1:{service.port}/")
    await page.evaluate(f"token => {{ (async () => {{ {program} }})(); }}", service.token)
    await until(lambda: any("event: job" in text for text in printed))
    assert printed[0].startswith(f'bytes 0-1023/{len(FILM)} "')


async def test_page_of_an_origin_that_is_not_named_reads_nothing(page: Page, serve: Serve) -> None:
    other = await serve(cors_origins=("http://localhost:1",))
    with pytest.raises(Error, match="Failed to fetch"):
        await send(page, other, "job-1")


async def test_session_of_the_browser_gives_a_page_of_another_origin_nothing(
    page: Page, service: Service, portal: BaseTestServer
) -> None:
    """The browser sends a SameSite=Strict cookie to another port, which is the same site."""
    await sign_in(page.context, service.port, str(service.token))
    await page.goto(f"http://127.0.0.1:{portal.port}/")
    url = url_of(service, "job-1")
    with pytest.raises(Error, match="Failed to fetch"):
        await page.evaluate(SEND, [url, {"credentials": "include"}])
    status, _, _ = await page.evaluate(SEND, [url, {}])
    assert status == 401
