"""Whatever a farm writes stays text on every page: no script runs, no element appears, nothing overflows.

`page_problems` would have violations of the Content-Security-Policy.
"""

from __future__ import annotations

from typing import Final

import pytest
from playwright.async_api import Page, expect

from tests.conftest import MakeJob, Serve
from tests.page.browser_context import DESKTOP, PHONE, Problems, Screen
from tests.page.conftest import OpenPage
from tests.page.hostile_farm import (
    LOG_END,
    MARK,
    MARKED_JOBS,
    OUTPUTS_JOBS,
    make_hostile_jobs,
)
from tests.programs.service_runner import Service

# Elements and attributes that the page never creates, and links to scripts.
INJECTED: Final = (
    "script:not([src^='ui/']), iframe, object, embed, base, [onerror], [onload], [onclick], [srcdoc], "
    "img[src='x'], [href^='javascript' i], [src^='javascript' i], #app title"
)

# Texts with bidirectional controls in one isolate with words of the page, whose order they could change.
NOT_ISOLATED: Final = r"""() => {
  const isolating = new Set(["isolate", "isolate-override", "plaintext"]);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    if (!/[\u202a-\u202e\u2066-\u2069]/.test(node.data)) continue;
    let isolate = node.parentElement;
    while (!isolating.has(getComputedStyle(isolate).unicodeBidi)) isolate = isolate.parentElement;
    const beside = isolate.textContent.replaceAll(node.data, "").replaceAll("gpj.exe", "");
    if (/[a-z]{2}/i.test(beside)) found.push(isolate.outerHTML.slice(0, 300));
  }
  return found;
}"""
OVERFLOW: Final = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_hostile_jobs(make_job)
    return await serve()


async def check(page: Page) -> None:
    assert await page.evaluate("window.attacked") is None
    injected = page.locator(INJECTED)
    assert await injected.count() == 0, await injected.first.evaluate("element => element.outerHTML")
    assert await page.evaluate(NOT_ISOLATED) == []
    assert await page.evaluate(OVERFLOW) <= 0


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_list_of_hostile_jobs_stays_text(service: Service, open_page: OpenPage, screen: Screen) -> None:
    page = await open_page(service, screen=screen)
    for job_id in (*MARKED_JOBS, *OUTPUTS_JOBS):
        await expect(page.get_by_text(job_id, exact=True).first).to_be_attached()
    await check(page)


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_pages_of_hostile_jobs_stay_text(service: Service, open_page: OpenPage, screen: Screen) -> None:
    page = await open_page(service, screen=screen)
    for job_id in MARKED_JOBS:
        await page.goto(f"?job={job_id}")
        await expect(page.get_by_text(MARK).first).to_be_visible()
        await check(page)


async def test_hostile_file_names_stay_text(service: Service, open_page: OpenPage) -> None:
    page = await open_page(service)
    for job_id in OUTPUTS_JOBS:
        await page.goto(f"?job={job_id}")
        await expect(page.get_by_text("output-data").first).to_be_visible()
        await check(page)


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_hostile_logs_stay_text(service: Service, open_page: OpenPage, screen: Screen) -> None:
    page = await open_page(service, screen=screen)
    for job_id in ("markup", "override", "controls", "word"):
        await page.goto(f"?job={job_id}&view=log")
        await expect(page.get_by_text(LOG_END).first).to_be_visible()
        await check(page)


RUN: Final = """(url) => import(url).then(() => "ran", () => "refused")"""
APPLY: Final = """(url) => new Promise((done) => {
  const link = document.createElement("link");
  Object.assign(link, { rel: "stylesheet", href: url });
  Object.assign(link, { onload: () => done("applied"), onerror: () => done("refused") });
  document.head.append(link);
})"""


async def test_output_is_no_script_and_no_style_of_the_page(
    serve: Serve, make_job: MakeJob, open_page: OpenPage, page_problems: Problems
) -> None:
    """The page's policy allows scripts and styles of its origin, and outputs are of the same."""
    make_job("script", output=b"window.attacked = 1", outputPath="output/main.js")
    make_job("style", output=b"body { display: none }", outputPath="output/main.css")
    service = await serve()
    page = await open_page(service)
    link = await service.link("script")
    for url in ("/api/jobs/script/download", "/api/jobs/script/files/main", link):
        assert await page.evaluate(RUN, url) == "refused"
    assert await page.evaluate(APPLY, "/api/jobs/style/download") == "refused"
    assert await page.evaluate("window.attacked") is None
    page_problems[:] = [each for each in page_problems if "400" not in each]
