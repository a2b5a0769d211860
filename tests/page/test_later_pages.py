"""The pages of a job and of its log are loaded after the list, or when a link leads to them."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.conftest import MakeJob, Serve
from tests.page.browser_context import Problems
from tests.page.conftest import OpenPage
from tests.page.later_pages import LATER, LOADED, wait_for_later_pages


async def sign_in(page: Page, token: str | None) -> None:
    await page.get_by_label("Token").fill(str(token))
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("link", name="job-1")).to_be_visible()


async def test_other_pages_are_loaded_after_the_list_and_are_then_there_at_once(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job()
    service = await serve()
    page = await open_page(service, token=None)
    await expect(page.get_by_label("Token")).to_be_visible()
    loaded = await page.evaluate(LOADED)
    assert "jobs/job_list_page.js" in loaded
    assert not set(LATER) & set(loaded)
    await sign_in(page, service.token)
    await wait_for_later_pages(page)
    await page.context.set_offline(offline=True)
    await page.get_by_role("link", name="job-1").click()
    await expect(page.get_by_role("heading", name="job-1")).to_be_visible()
    await page.get_by_role("link", name="Log").click()
    await expect(page.get_by_role("heading", name="job-1 log")).to_be_visible()


@pytest.mark.parametrize("folder", ["job", "log"])
async def test_page_that_cannot_be_loaded_says_so_until_it_is_reloaded(
    serve: Serve, open_page: OpenPage, make_job: MakeJob, page_problems: Problems, folder: str
) -> None:
    make_job()
    service = await serve()
    page = await open_page(service, token=None)
    modules = f"**/{folder}/*.js"
    await page.route(modules, lambda route: route.abort())
    await sign_in(page, service.token)
    await page.get_by_role("link", name="job-1").click()
    await expect(page.get_by_role("alert")).to_contain_text("could not be loaded. Reload")
    await page.get_by_role("link", name="Jobs", exact=True).click()
    await expect(page.get_by_role("link", name="job-1")).to_be_visible()
    await page.unroute(modules)
    await page.goto("?job=job-1")
    await expect(page.get_by_role("heading", name="job-1")).to_be_visible()
    page_problems[:] = [each for each in page_problems if "ERR_FAILED" not in each]
