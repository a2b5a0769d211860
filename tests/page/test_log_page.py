"""The page of a log, in Chromium: a window over logs of any size, live."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from jobsvc.settings import Settings
from tests.conftest import MakeJob, MakeToken, Serve
from tests.page.axe_core import AxeCheck
from tests.page.browser_context import DARK, DESKTOP, PHONE, Screen
from tests.page.conftest import OpenPage
from tests.programs.service_runner import service_in_loop

LOG = "?job=job-1&view=log"
ROW_HEIGHT = 18
"""In pixels, as in `log_view.js`."""
LARGE = b"".join(b"line %d of the log\n" % number for number in range(1, 300_001))
TOO_LARGE_TO_COUNT = LARGE * 3


def append(folder: Path, data: bytes) -> None:
    with (folder / "render.log").open("ab") as log:
        log.write(data)


async def expect_line(page: Page, text: str) -> None:
    await expect(page.locator(".log-row", has_text=text).last).to_be_in_viewport()


async def scroll_to(page: Page, top: str) -> None:
    """Move the scroll bar; `top` is an expression of `view`, the element that scrolls."""
    await page.locator(".log-view").evaluate(f"view => {{ view.scrollTop = {top}; }}")


async def test_large_log_opens_at_its_end_with_line_numbers(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    make_job(status="failed", log=LARGE)
    page = await open_page(await serve(), LOG)
    await expect_line(page, "line 300000 of the log")
    await expect(page.get_by_role("link", name="Line 300000", exact=True)).to_be_visible()
    assert await page.locator(".log-row").count() < 150
    await expect(page.locator(".log-status")).to_contain_text("Complete")


async def test_scroll_bar_reaches_every_part_of_the_log(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    make_job(status="completed", log=LARGE)
    page = await open_page(await serve(), LOG)
    await expect_line(page, "line 300000 of the log")
    await scroll_to(page, "0")
    await expect_line(page, "line 1 of the log")
    await scroll_to(page, "view.scrollHeight / 2")
    middle = page.locator(".log-row", has_text=re.compile(r"line 1[45]\d{4} of"))
    await expect(middle.nth(20)).to_be_in_viewport()
    await page.keyboard.press("G")
    await expect_line(page, "line 300000 of the log")


async def test_scrolling_by_the_wheel_skips_nothing(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    make_job(status="completed", log=LARGE)
    page = await open_page(await serve(), f"{LOG}#L150000")
    await expect_line(page, "line 150000 of the log")
    view = page.locator(".log-view")
    await view.hover()
    for line in range(149_600, 130_000, -400):
        top = await view.evaluate("view => view.scrollTop")
        await page.mouse.wheel(0, -400 * ROW_HEIGHT)
        await expect(view).not_to_have_js_property("scrollTop", top)
        await expect_line(page, f"line {line} of the log")


async def test_address_names_lines(serve: Serve, make_job: MakeJob, open_page: OpenPage) -> None:
    make_job(status="completed", log=LARGE)
    page = await open_page(await serve(), f"{LOG}#L1200-L1203")
    await expect(page.locator(".log-row.selected")).to_have_count(4)
    await expect_line(page, "line 1200 of the log")
    await page.get_by_role("link", name="Line 1205", exact=True).click()
    await expect(page).to_have_url(re.compile("#L1205$"))
    await page.get_by_role("link", name="Line 1207", exact=True).click(modifiers=["Shift"])
    await expect(page).to_have_url(re.compile("#L1205-L1207$"))
    await expect(page.locator(".log-row.selected")).to_have_count(3)


async def test_line_after_the_last_one_is_the_end(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    make_job(status="completed", log=b"one\ntwo\n")
    page = await open_page(await serve(), f"{LOG}#L99")
    await expect_line(page, "two")


async def test_log_that_is_too_large_to_count_has_links_to_bytes(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    make_job(status="completed", log=TOO_LARGE_TO_COUNT)
    page = await open_page(await serve(), LOG)
    await expect(page.locator(".log-status")).to_contain_text("Too large to count")
    await page.get_by_role("link", name="Byte").last.click()
    await expect(page).to_have_url(re.compile("#B"))
    await expect(page.locator(".log-row.selected")).to_have_count(1)
    await page.get_by_role("button", name="Count lines").click()
    await expect(page.get_by_role("link", name="Line 900000", exact=True)).to_be_visible()


async def test_new_lines_are_followed(serve: Serve, make_job: MakeJob, open_page: OpenPage) -> None:
    folder = make_job(status="rendering", log=LARGE[:20_000])
    page = await open_page(await serve(), LOG)
    await expect(page.locator(".log-status")).to_contain_text("Live")
    for number in range(3):
        append(folder, b"new %d\n" % number * 50)
        await expect_line(page, f"new {number}")
    make_job(status="completed", log=None)
    await expect(page.locator(".log-status")).to_contain_text("Complete")


async def test_following_pauses_while_the_reader_is_further_up(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    folder = make_job(status="rendering", log=LARGE[:20_000])
    page = await open_page(await serve(), LOG)
    await expect(page.locator(".log-status")).to_contain_text("Live")
    view = page.locator(".log-view")
    await expect_line(page, LARGE[:20_000].decode().splitlines()[-1])
    end = await view.evaluate("view => view.scrollTop")
    await view.hover()
    await page.mouse.wheel(0, -300)
    await expect(page.get_by_role("button", name="To the end")).to_be_visible()
    await expect(view).to_have_js_property("scrollTop", end - 300)  # it may move there slowly
    append(folder, b"new\n" * 1500)
    await page.get_by_role("button", name="1,500 new lines").wait_for()
    assert await view.evaluate("view => view.scrollTop") == end - 300
    await page.get_by_role("button", name="1,500 new lines").click()
    append(folder, b"followed again\n")
    await expect_line(page, "followed again")


async def test_progress_that_is_rewritten_is_one_line(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    folder = make_job(status="rendering", log=b"start\n")
    page = await open_page(await serve(), LOG)
    await expect(page.locator(".log-status")).to_contain_text("Live")
    for percent in (10, 20, 30):
        append(folder, b"%d %%\r" % percent)
    append(folder, b"40 %\r\ndone\n")
    await expect(page.locator(".line-text")).to_have_text(["start", "40 %", "done"])


async def test_log_that_begins_again_replaces_what_is_shown(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    folder = make_job(status="rendering", log=b"first attempt\n")
    page = await open_page(await serve(), LOG)
    await expect(page.locator(".log-status")).to_contain_text("Live")
    (folder / "render.log").write_bytes(b"second\n")
    await expect(page.locator(".line-text")).to_have_text(["second"])


async def test_log_appears_when_it_is_written(serve: Serve, make_job: MakeJob, open_page: OpenPage) -> None:
    folder = make_job(status="rendering")
    page = await open_page(await serve(), LOG)
    await expect(page.get_by_text("Nothing has been logged yet")).to_be_visible()
    append(folder, b"here it is\n")
    await expect_line(page, "here it is")
    await expect(page.get_by_text("Nothing has been logged yet")).to_have_count(0)


@pytest.mark.parametrize("log", [None, b""])
async def test_job_without_a_log_says_so(
    serve: Serve, make_job: MakeJob, open_page: OpenPage, log: bytes | None
) -> None:
    make_job(status="completed", log=log)
    page = await open_page(await serve(), LOG)
    await expect(page.get_by_text("This job has no log.")).to_be_visible()


async def test_job_that_does_not_exist_is_an_error(serve: Serve, open_page: OpenPage) -> None:
    page = await open_page(await serve(), LOG)
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(page.locator(".log-status")).to_contain_text("Not available")


async def test_nothing_is_lost_while_the_service_restarts(
    state_dir: Path, jobs_root: Path, make_token: MakeToken, make_job: MakeJob, open_page: OpenPage
) -> None:
    settings = Settings(jobs_root=jobs_root, state_dir=state_dir, port=0, shutdown_grace=0.1)
    token = make_token()
    folder = make_job(status="rendering", log=b"before\n")
    async with service_in_loop(settings, token) as service:
        page = await open_page(service, LOG)
        await expect(page.locator(".log-status")).to_contain_text("Live")
    await expect(page.locator(".log-status")).to_contain_text("Not live")
    append(folder, b"meanwhile\n")
    async with service_in_loop(Settings(jobs_root=jobs_root, state_dir=state_dir, port=service.port), token):
        append(folder, b"after\n")
        lines = page.locator(".line-text")
        await expect(lines).to_have_text(["before", "meanwhile", "after"], timeout=40_000)


async def test_search_goes_further_back_than_what_is_loaded(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    make_job(status="failed", log=b"The Cause\n" + LARGE + b"cause\n")
    page = await open_page(await serve(), LOG)
    await expect_line(page, "line 300000 of the log")
    await page.keyboard.press("/")
    await page.keyboard.type("cause")
    found = page.locator("search [role=status]")
    await expect(found).to_contain_text("1 in ")
    await page.keyboard.press("Enter")
    await expect(found).to_contain_text("1 of 1 in ")
    await page.keyboard.press("Enter")
    await expect(found).to_have_text("1 of 2")
    await expect(page.locator(".log-row.current")).to_contain_text("The Cause")
    await expect(page.locator("mark")).to_have_text(["Cause"])
    await page.keyboard.press("Shift+Enter")
    await expect(found).to_have_text("2 of 2")
    await expect_line(page, "line 300000 of the log")


async def test_search_begins_with_the_lowest_line_in_the_window(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    make_job(status="failed", log=b"error 1\n" + LARGE[:20_000] + b"error 2\nerror 3\nend\n")
    page = await open_page(await serve(), f"{LOG}#L1")
    await expect_line(page, "error 1")
    await page.get_by_role("searchbox").fill("error")
    await page.keyboard.press("Enter")
    await expect(page.locator(".log-row.current")).to_contain_text("error 1")
    await page.keyboard.press("Shift+Enter")
    await expect(page.locator(".log-row.current")).to_contain_text("error 2")


async def test_colours_of_a_terminal(serve: Serve, make_job: MakeJob, open_page: OpenPage) -> None:
    make_job(status="failed", log=b"\x1b[1;31mERROR\x1b[0m plain \x1b[38;2;0;90;200mblue\x1b[0m\n")
    page = await open_page(await serve(), LOG)
    await expect(page.locator(".line-text")).to_have_text("ERROR plain blue")
    colored = page.locator(".line-text [style]")
    await expect(colored).to_have_text(["ERROR", "blue"])
    color = "span => getComputedStyle(span).color"
    spans = [page.locator(".line-text"), *await colored.all()]
    colors = {await span.evaluate(color) for span in spans}
    assert len(colors) == 3


async def test_log_stays_text(serve: Serve, make_job: MakeJob, open_page: OpenPage) -> None:
    hostile = "<script>alert(1)</script> <img src=x onerror=alert(1)> \u202egnp.exe &amp; \0\n"
    make_job(status="failed", log=hostile.encode() + b"x" * 1_000_000 + b"\n\xff\xfe\n")
    page = await open_page(await serve(), f"{LOG}#L1")
    await expect(page.locator(".line-text").first).to_have_text(hostile.replace("\0\n", "\u2400"))
    await expect(page.locator(".line-text").nth(1)).to_contain_text("and more in the download")
    assert await page.locator(".log-view script, .log-view img").count() == 0


async def test_wrapped_lines_need_no_scrolling_sideways(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    make_job(status="failed", log=b"word " * 200 + b"\n" + b"x" * 5000 + b"\nend\n")
    page = await open_page(await serve(), LOG, screen=PHONE)
    view = page.locator(".log-view")
    await expect_line(page, "end")
    assert await view.evaluate("view => view.scrollWidth > view.clientWidth")
    await page.get_by_role("button", name="Wrap").click()
    await expect(view).to_have_class("log-view wrapped")
    assert await view.evaluate("view => view.scrollWidth === view.clientWidth")
    await expect_line(page, "end")


async def test_selected_lines_are_copied(serve: Serve, make_job: MakeJob, open_page: OpenPage) -> None:
    make_job(status="failed", log=b"one\n\x1b[31mtwo\x1b[0m\n10 %\r20 %\nfour\n")
    page = await open_page(await serve(), f"{LOG}#L2-L3")
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await expect(page.locator(".log-row.selected")).to_have_count(2)
    await page.get_by_role("button", name="Copy selected").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == "two\n20 %\n"


async def test_log_is_downloaded(serve: Serve, make_job: MakeJob, open_page: OpenPage) -> None:
    make_job(status="failed", log=LARGE)
    page = await open_page(await serve(), LOG)
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download").click()
    file = await download.value
    assert file.suggested_filename == "job-1.log"
    assert await asyncio.to_thread(Path(await file.path()).read_bytes) == LARGE


@pytest.mark.parametrize("screen", [DESKTOP, DARK, PHONE], ids=["desktop", "dark", "phone"])
async def test_everyone_can_use_the_page(
    serve: Serve, make_job: MakeJob, open_page: OpenPage, axe: AxeCheck, screen: Screen
) -> None:
    colors = b"".join(
        b"\x1b[%dmtext \x1b[0m\x1b[38;5;%dmtext\x1b[0m\n" % (30 + n % 8, n * 8) for n in range(32)
    )
    make_job(status="failed", log=colors + b"\x1b[41mfilled\x1b[0m \x1b[7minverse\x1b[0m \x1b[2mdim\x1b[0m\n")
    page = await open_page(await serve(), f"{LOG}#L20", screen=screen)
    await page.get_by_role("searchbox").fill("text")
    await expect(page.locator("mark").first).to_be_visible()
    await axe(page)
