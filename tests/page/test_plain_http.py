"""The page at a host name without TLS: browsers then send no Sec-Fetch-Site, and have no secure context."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest
from playwright.async_api import Browser, Page, Request, async_playwright, expect

from tests.conftest import MakeJob, Serve
from tests.page.browser_context import DESKTOP, Problems, new_context
from tests.programs import chromium
from tests.programs.service_runner import Service

HOST: Final = "jobs.test"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium that finds this machine under a name."""
    program = chromium.find()
    if program is None:
        pytest.skip("not installed: chromium")
    flags = [*chromium.FLAGS, f"--host-resolver-rules=MAP {HOST} 127.0.0.1"]
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program, args=flags)
        yield running
        await running.close()


async def test_browser_signs_in_uses_its_cookie_and_signs_out_without_fetch_metadata(
    serve: Serve, make_job: MakeJob, browser: Browser, page_problems: Problems
) -> None:
    make_job("shot-7", output=b"film")
    service = await serve()
    async with new_context(browser, service.port, None, DESKTOP, page_problems) as context:
        page = await context.new_page()
        posts: list[Request] = []
        page.on("request", lambda sent: posts.append(sent) if sent.method != "GET" else None)
        url = f"http://{HOST}:{service.port}/"
        await page.goto(f"{url}#token={service.token}")
        await expect(page.get_by_text("shot-7").first).to_be_visible()
        link = await page.evaluate(
            "fetch('api/jobs/shot-7/download-links', {method: 'POST'}).then((response) => response.status)"
        )
        assert link == 201
        await page.evaluate("fetch('ui/session', {method: 'DELETE'})")
        await page.goto(url)
        await expect(page.get_by_label("Token")).to_be_visible()
        for sent in posts:
            headers = await sent.all_headers()
            assert "sec-fetch-site" not in headers
            assert headers["origin"] == url.rstrip("/")
    # Chromium says that it needs https for this field.
    page_problems[:] = [each for each in page_problems if "Cross-Origin-Opener-Policy" not in each]


async def test_text_is_copied_by_a_browser_that_has_no_clipboard_for_plain_http(
    serve: Serve, make_job: MakeJob, browser: Browser, page_problems: Problems
) -> None:
    make_job(log=b"first line\nsecond line\n")
    service = await serve()
    async with new_context(browser, service.port, None, DESKTOP, page_problems) as context:
        page = await context.new_page()
        await page.goto(f"http://{HOST}:{service.port}/?job=job-1&view=log#token={service.token}")
        await expect(page.get_by_text("second line")).to_be_visible()
        assert await page.evaluate("navigator.clipboard === undefined")
        await page.evaluate("location.hash = 'L2'")
        await page.get_by_role("button", name="Copy selected").click()
        await expect(page.get_by_role("button", name="Copied")).to_be_focused()
        await page.get_by_role("searchbox").focus()
        await page.keyboard.press("Control+V")
        await expect(page.get_by_role("searchbox")).to_have_value("second line")
    page_problems[:] = [each for each in page_problems if "Cross-Origin-Opener-Policy" not in each]


async def test_page_of_an_https_service_says_why_nobody_can_sign_in_over_plain_http(
    serve: Serve, browser: Browser, page_problems: Problems
) -> None:
    service = await serve(public_url="https://render.example/farm")
    async with new_context(browser, service.port, None, DESKTOP, page_problems) as context:
        page = await context.new_page()
        await sign_in(page, f"http://{HOST}:{service.port}/", service)
        await expect(page.get_by_role("alert")).to_contain_text("Open https://render.example/farm/ instead.")
        await sign_in(page, f"http://localhost:{service.port}/", service)  # Chromium keeps the cookie
        await expect(page.locator("main:not(.sign-in)")).to_be_visible()
    page_problems.clear()


async def sign_in(page: Page, url: str, service: Service) -> None:
    await page.goto(url)
    await page.get_by_label("Token").fill(str(service.token))
    await page.get_by_role("button", name="Sign in").click()
