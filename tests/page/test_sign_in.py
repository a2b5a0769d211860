"""Signing in and out, in Chromium."""

from __future__ import annotations

from typing import Final

from playwright.async_api import expect

from tests.conftest import MakeJob, Serve
from tests.page.conftest import OpenPage

SIGNED_IN: Final = "main:not(.sign-in)"
READABLE: Final = """JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}, history.state,
  document.documentElement.outerHTML])"""


async def test_token_in_the_form_signs_in(serve: Serve, open_page: OpenPage) -> None:
    service = await serve()
    page = await open_page(service, token=None)
    await page.get_by_label("Token").fill(f" {service.token} ")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator(SIGNED_IN)).to_be_visible()


async def test_invalid_token_is_rejected_and_leaves_the_form(serve: Serve, open_page: OpenPage) -> None:
    page = await open_page(await serve(), token=None)
    await page.get_by_label("Token").fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
    await expect(page.get_by_label("Token")).to_have_value("")


async def test_token_in_the_fragment_signs_in_and_leaves_the_address(
    serve: Serve, open_page: OpenPage
) -> None:
    service = await serve()
    page = await open_page(service, f"?q=shot#token={service.token}", token=None)
    await expect(page.locator(SIGNED_IN)).to_be_visible()
    await expect(page).to_have_url(f"http://127.0.0.1:{service.port}/?q=shot")


async def test_token_is_in_nothing_that_a_script_can_read(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job()
    service = await serve()
    page = await open_page(service, f"#token={service.token}", token=None)
    await expect(page.locator(SIGNED_IN)).to_be_visible()
    readable = await page.evaluate(READABLE)
    assert str(service.token) not in readable
    assert "jobsvc=" not in readable
