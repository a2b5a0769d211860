"""The list of jobs, in Chromium: live, filtered, by keyboard, and in several tabs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Locator, Page, expect

from jobsvc.settings import Settings
from tests.conftest import MakeJob, MakeToken, Serve
from tests.page.axe_core import AxeCheck
from tests.page.browser_context import DARK, DESKTOP, PHONE, Screen
from tests.page.conftest import OpenPage
from tests.page.later_pages import wait_for_later_pages
from tests.programs.service_runner import service_in_loop

HOUR: Final = "2026-11-22T{:02}:00:00Z"


def rows(page: Page) -> Locator:
    return page.locator(".jobs .row:has(a)")


def row(page: Page, job_id: str) -> Locator:
    return rows(page).filter(has=page.get_by_role("link", name=job_id, exact=True))


async def test_jobs_are_listed_newest_first(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    make_job("second", createdAt=HOUR.format(9))
    make_job("first", createdAt=HOUR.format(10))
    make_job("third", createdAt=HOUR.format(8))
    page = await open_page(await serve())
    await expect(rows(page).get_by_role("link")).to_have_text(["first", "second", "third"])


async def test_state_progress_frames_and_phase_are_live(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job("a", status="rendering", progress=20, framesDone=10, framesTotal=50, phase="beauty")
    page = await open_page(await serve(poll_interval=0.1))
    await expect(row(page, "a")).to_contain_text("Rendering")
    for text in ("20 %", "10 / 50", "beauty"):
        await expect(row(page, "a")).to_contain_text(text)
    make_job("a", status="failed", error="licence expired")
    await expect(row(page, "a")).to_contain_text("Failed")
    await expect(row(page, "a")).to_contain_text("licence expired")


async def test_new_and_removed_jobs_are_live(
    serve: Serve, open_page: OpenPage, make_job: MakeJob, jobs_root: Path
) -> None:
    folder = make_job("a")
    page = await open_page(await serve(poll_interval=0.1))
    await expect(row(page, "a")).to_be_visible()
    make_job("b")
    await expect(row(page, "b")).to_be_visible()
    folder.rename(jobs_root.parent / "elsewhere")
    await expect(row(page, "a")).to_have_count(0)


async def test_title_has_the_number_of_running_jobs(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job("a", status="rendering")
    make_job("b", status="rendering")
    page = await open_page(await serve(poll_interval=0.1))
    await expect(page).to_have_title("(2) jobsvc")
    make_job("a", status="canceled")
    make_job("b", status="failed")
    await expect(page).to_have_title("jobsvc")


async def test_states_and_text_filter_and_are_in_the_address(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job("comp-1", status="failed", createdAt=HOUR.format(3))
    make_job("comp-2", status="queued", createdAt=HOUR.format(2))
    make_job("light-1", status="failed", createdAt=HOUR.format(1), metadata={"artist": "Björn"})
    page = await open_page(await serve())
    await page.get_by_role("button", name="Failed 2").click()
    await expect(rows(page).get_by_role("link")).to_have_text(["comp-1", "light-1"])
    await page.get_by_role("searchbox").fill("BJÖRN")
    await expect(rows(page).get_by_role("link")).to_have_text(["light-1"])
    await expect(page.get_by_role("button", name="Queued 0")).to_be_visible()
    await page.reload()
    await expect(rows(page).get_by_role("link")).to_have_text(["light-1"])
    await page.get_by_role("searchbox").fill("")
    await page.get_by_role("button", name="All 3").click()
    await expect(rows(page)).to_have_count(3)


async def test_stalled_jobs_have_a_badge_and_a_filter(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job("old", status="rendering", updatedAt=HOUR.format(1))
    make_job("done", output=b"film")
    page = await open_page(await serve(stalled_after=0.1))
    await expect(row(page, "old")).to_contain_text("Stalled")
    await page.get_by_role("button", name="Stalled 1").click()
    await expect(rows(page)).to_have_count(1)


async def test_keys_search_move_and_open(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    for name in "abc":
        make_job(name, createdAt=HOUR.format(10 + "cba".index(name)))
    page = await open_page(await serve())
    await expect(rows(page)).to_have_count(3)
    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox")).to_be_focused()
    await page.keyboard.press("j")
    await expect(page.get_by_role("searchbox")).to_have_value("j")
    await page.keyboard.press("Backspace")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("searchbox")).not_to_be_focused()
    await page.keyboard.press("j")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("j")
    await page.keyboard.press("k")
    await expect(row(page, "b").get_by_role("link")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(r"/\?job=b$"))


async def test_question_mark_lists_the_keys(serve: Serve, open_page: OpenPage) -> None:
    page = await open_page(await serve())
    await expect(page.get_by_text("No jobs yet")).to_be_visible()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_contain_text("Next job")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_only_rows_near_the_window_are_in_the_document(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    for number in range(600):
        make_job(f"job-{number:03}", createdAt=HOUR.format(1))
    page = await open_page(await serve())
    await expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", "601")
    await page.keyboard.press("End")
    await expect(row(page, "job-599")).to_be_in_viewport()
    assert await rows(page).count() < 100
    await expect(row(page, "job-599")).to_have_attribute("aria-rowindex", "601")


async def test_focus_stays_with_its_job(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    for number in range(600):
        make_job(f"job-{number:03}", createdAt=HOUR.format(1))
    page = await open_page(await serve(poll_interval=0.1))
    await expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", "601")
    await page.keyboard.press("j")
    await expect(row(page, "job-000").get_by_role("link")).to_be_focused()
    await page.keyboard.press("j")
    await expect(row(page, "job-001").get_by_role("link")).to_be_focused()
    make_job("new", createdAt=HOUR.format(2))
    await expect(row(page, "new")).to_be_visible()
    await expect(row(page, "job-001").get_by_role("link")).to_be_focused()
    await page.evaluate("scrollTo(0, document.body.scrollHeight)")
    await expect(row(page, "job-599")).to_be_in_viewport()
    await expect(row(page, "job-001")).to_have_count(0)
    assert await page.evaluate("document.activeElement === document.body")


async def test_list_is_where_it_was_after_a_look_at_a_job(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    for number in range(200):
        make_job(f"job-{number:03}", createdAt=HOUR.format(1))
    page = await open_page(await serve())
    await expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", "201")
    await page.mouse.wheel(0, 2000)
    await expect(row(page, "job-080")).to_be_in_viewport()
    await row(page, "job-080").get_by_role("link").click()
    await expect(page.get_by_role("heading", name="job-080")).to_be_visible()
    await page.go_back()
    await expect(row(page, "job-080")).to_be_in_viewport()


async def test_way_back_from_a_job_leads_to_the_filtered_list(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job("a", status="failed")
    make_job("b", status="queued")
    page = await open_page(await serve(), "?status=failed")
    await row(page, "a").get_by_role("link").click()
    await page.get_by_role("link", name="Jobs", exact=True).click()
    await expect(rows(page).get_by_role("link")).to_have_text(["a"])
    await page.get_by_role("link", name="Jobs", exact=True).click()
    await expect(rows(page)).to_have_count(2)


async def test_service_that_stops_is_reported_and_found_again(
    state_dir: Path, jobs_root: Path, make_token: MakeToken, make_job: MakeJob, open_page: OpenPage
) -> None:
    settings = Settings(jobs_root=jobs_root, state_dir=state_dir, port=0, shutdown_grace=0.1)
    token = make_token()
    make_job("before")
    async with service_in_loop(settings, token) as service:
        page = await open_page(service)
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        await expect(row(page, "before")).to_be_visible()
        await wait_for_later_pages(page)
    await expect(page.get_by_text("Not live since")).to_be_visible()
    make_job("meanwhile")
    restarted = Settings(jobs_root=jobs_root, state_dir=state_dir, port=service.port, shutdown_grace=0.1)
    async with service_in_loop(restarted, token):
        await expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=40_000)
        await expect(rows(page)).to_have_count(2)


async def test_all_tabs_share_one_event_stream(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    make_job("a")
    service = await serve()
    page = await open_page(service)
    await expect(row(page, "a")).to_be_visible()
    second = await page.context.new_page()
    await second.goto("./")
    await expect(row(second, "a")).to_be_visible()
    assert await service.metric('jobsvc_event_streams{of="jobs"}') == 1


async def test_signing_out_signs_out_all_tabs(serve: Serve, open_page: OpenPage) -> None:
    page = await open_page(await serve())
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    second = await page.context.new_page()
    await second.goto("./")
    await expect(second.get_by_text("Live", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Token")).to_be_visible()
    await expect(second.get_by_role("alert")).to_have_text("The session has ended.")


async def test_browser_without_shared_workers_has_a_live_list(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    page = await open_page(await serve(poll_interval=0.1))
    await page.add_init_script("delete globalThis.SharedWorker")
    await page.reload()
    await expect(page.get_by_text("No jobs yet")).to_be_visible()
    make_job("a")
    await expect(row(page, "a")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Token")).to_be_visible()
    await expect(page.get_by_text("The session has ended.")).to_have_count(0)


async def test_watched_job_that_ends_is_notified(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job("a", status="rendering")
    page = await open_page(await serve(poll_interval=0.1))
    await page.evaluate("""() => { globalThis.Notification = class {
        static requestPermission = async () => "granted";
        constructor(title, {body}) { document.body.title = `${title}: ${body}`; } } }""")
    button = page.get_by_role("button", name="Notify me when a ends")
    await button.click()
    await expect(button).to_have_attribute("aria-pressed", "true")
    make_job("a", status="failed", error="no licence")
    await expect(page.locator("body")).to_have_attribute("title", "a has failed: no licence")


async def test_admin_sees_owners(
    serve: Serve, open_page: OpenPage, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job("a", owner="someone")
    token = make_token("root", ["admin"])
    page = await open_page(await serve(), token=token)
    await expect(row(page, "a")).to_contain_text("someone")


@pytest.mark.parametrize("screen", [DESKTOP, DARK, PHONE], ids=["light", "dark", "phone"])
async def test_list_has_no_violation_of_accessibility_rules(
    serve: Serve, open_page: OpenPage, make_job: MakeJob, axe: AxeCheck, screen: Screen
) -> None:
    make_job("a", status="rendering", progress=40, updatedAt=HOUR.format(1), phase="beauty")
    make_job("b", status="failed", error="no licence", progress=3)
    make_job("c", output=b"film")
    make_job("d", status="canceled")
    make_job("e", status="queued")
    page = await open_page(await serve(), screen=screen)
    await expect(rows(page)).to_have_count(5)
    await axe(page)
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await axe(page)
