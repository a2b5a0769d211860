"""The page of a job: its state, live, and what the page says when there is none."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from playwright.async_api import Page, Route, expect

from jobsvc.domain.access import JOBS_READ
from jobsvc.domain.job import Status
from tests.conftest import MakeJob, MakeToken, Serve
from tests.page.axe_core import AxeCheck
from tests.page.browser_context import DARK, PHONE
from tests.page.conftest import OpenPage

RENDERING: Final[dict[str, Any]] = {
    "status": "rendering",
    "progress": 42,
    "framesDone": 105,
    "framesTotal": 250,
    "phase": "beauty pass",
    "createdAt": "2026-01-01T00:00:00Z",
    "startedAt": "2026-01-01T00:01:00Z",
}
JOB: Final = "**/api/jobs/job-1"
BATCH: Final = 9_000_000_000_000_000_017


def fact(page: Page, name: str) -> str:
    """Return a selector of a value in the lists of facts."""
    return f'//dt[normalize-space()="{name}"]/following-sibling::dd[1]'


async def test_rendering_job_shows_progress_frames_phase_and_remaining_time(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    end = datetime.now(UTC) + timedelta(minutes=30, seconds=30)
    make_job(**RENDERING, estimatedCompletionAt=end.isoformat())
    page = await open_page(await serve(), "?job=job-1")
    main = page.get_by_role("main")
    await expect(main).to_contain_text("42 %, 105 / 250 frames")
    await expect(main).to_contain_text("beauty pass")
    await expect(main).to_contain_text(
        re.compile(r"Rendering\s*for .*, ends in 30 min, 42 %, 105 / 250 frames")
    )
    await expect(page).to_have_title("42 % · job-1 · jobsvc")


async def test_error_of_failed_job_is_above_its_state_and_the_end_of_its_log(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(status="failed", error="exit code 1", log=b"one\nno such plate\n")
    page = await open_page(await serve(), "?job=job-1")
    await expect(page.get_by_label("End of the log")).to_be_visible()
    text = await page.get_by_role("main").inner_text()
    assert text.index("exit code 1") < text.index("Failed") < text.index("no such plate")


async def test_end_of_log_is_scrolled_to_its_last_line(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(status="failed", log=b"".join(b"line %d\n" % number for number in range(100)))
    page = await open_page(await serve(), "?job=job-1")
    tail = page.get_by_label("End of the log")
    await expect(tail).to_contain_text("line 99")
    await page.wait_for_function(
        "pre => pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 1", arg=await tail.element_handle()
    )


async def test_end_of_log_has_the_colours_of_a_terminal(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(status="failed", log=b"50 %\r100 %\n\x1b[31mno such plate\x1b[0m\n")
    page = await open_page(await serve(), "?job=job-1")
    tail = page.get_by_label("End of the log")
    await expect(tail.locator("[style]")).to_have_text("no such plate")
    assert (await tail.inner_text()).splitlines()[:2] == ["100 %", "no such plate"]


async def test_key_leads_to_the_log(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    make_job(log=b"one\n")
    service = await serve()
    page = await open_page(service, "?job=job-1")
    await expect(page).to_have_title("queued · job-1 · jobsvc")  # the page has started
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_contain_text("Show the log")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("l")
    await expect(page).to_have_url(re.compile(r"\?job=job-1&view=log$"))


async def test_log_is_one_click_away(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    make_job(status="failed", log=b"one\n")
    page = await open_page(await serve(), "?job=job-1")
    await page.get_by_role("link", name="Log").click()
    await expect(page).to_have_url(re.compile(r"\?job=job-1&view=log$"))


async def test_everything_in_the_record_is_shown(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(**RENDERING | {"status": "paused"}, projectPath="a.blend", outputPath="o.mp4", attempt=3)
    page = await open_page(await serve(status_aliases={"paused": Status.QUEUED}), "?job=job-1")
    for name, value in {"Attempt": "3", "Project": "a.blend", "Output": "o.mp4"}.items():
        await expect(page.locator(fact(page, name))).to_have_text(value)
    await expect(page.locator(fact(page, "Farm status"))).to_have_text("paused")
    await expect(page.locator(fact(page, "Created"))).to_have_text("1 Jan 2026, 00:00:00")


async def test_metadata_is_text_and_its_numbers_keep_their_digits(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(metadata={"batch": BATCH, "size": [640, 360], "<b>": "<img src=x>"})
    page = await open_page(await serve(), "?job=job-1")
    await expect(page.locator(fact(page, "batch"))).to_have_text(str(BATCH))
    await expect(page.locator(fact(page, "size"))).to_have_text("[640,360]")
    await expect(page.locator(fact(page, "<b>"))).to_have_text("<img src=x>")


async def test_long_text_is_cut_and_the_document_has_all_of_it(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(status="failed", error="W" * 100_000)
    page = await open_page(await serve(), "?job=job-1")
    error = page.locator(".error")
    await expect(error).to_have_text(re.compile(r"W… \(100 kB\)$"))
    await expect(page.get_by_role("link", name="As JSON")).to_have_attribute("href", "api/jobs/job-1")


async def test_changes_appear_without_reloading(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    make_job(**RENDERING)
    page = await open_page(await serve(poll_interval=0.1), "?job=job-1")
    await expect(page.get_by_role("main")).to_contain_text("42 %")
    make_job(**RENDERING | {"progress": 43})
    await expect(page.get_by_role("main")).to_contain_text("43 %")
    make_job(output=b"film")
    await expect(page.get_by_role("link", name="Download")).to_be_visible()


async def test_job_that_was_removed_stays_on_the_page_and_says_so(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    folder = make_job(**RENDERING)
    page = await open_page(await serve(poll_interval=0.1), "?job=job-1")
    await expect(page.get_by_role("main")).to_contain_text("beauty pass")
    shutil.rmtree(folder)
    await expect(page.locator(".notice")).to_contain_text("No job with this id exists")
    await expect(page.get_by_role("main")).to_contain_text("beauty pass")


async def test_jobs_that_do_not_exist_and_of_other_owners_look_the_same(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job("theirs", owner="bert")
    service = await serve()
    texts = []
    for job_id in ("theirs", "nobody"):
        page = await open_page(service, f"?job={job_id}")
        await expect(page.get_by_role("main")).to_contain_text("No job with this id exists")
        texts.append((await page.get_by_role("main").inner_text()).replace(job_id, ""))
    assert texts[0] == texts[1]


async def test_page_finds_a_job_that_appears_later(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    page = await open_page(await serve(poll_interval=0.1), "?job=job-1")
    await expect(page.get_by_role("main")).to_contain_text("No job with this id exists")
    make_job()
    await expect(page.get_by_role("main")).to_contain_text("Queued")


async def test_rate_limit_is_explained(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    make_job()
    service = await serve(limit_status="1/hour")
    await service.get("/api/jobs/job-1")
    page = await open_page(service, "?job=job-1")
    await expect(page.locator(".notice")).to_contain_text("used its 1 status requests")


async def test_lost_service_is_reported_above_the_last_state(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(**RENDERING)
    page = await open_page(await serve(poll_interval=0.1), "?job=job-1")
    await expect(page.get_by_role("main")).to_contain_text("42 %")
    await page.route(JOB, lambda route: route.abort())
    make_job(**RENDERING | {"progress": 43})
    await expect(page.locator(".notice")).to_contain_text("The service can't be reached. Trying again.")
    await expect(page.get_by_role("main")).to_contain_text("42 %")
    await page.unroute(JOB)
    await expect(page.get_by_role("main")).to_contain_text("43 %")
    await expect(page.locator(".notice")).to_have_count(0)


async def test_state_that_storage_does_not_confirm_has_its_age(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(output=b"film")
    page = await open_page(await serve())

    async def answer_stale(route: Route) -> None:
        response = await route.fetch()
        fields = {"Cache-Status": "jobsvc; hit; detail=storage-unavailable", "Age": "90"}
        await route.fulfill(response=response, headers={**response.headers, **fields})

    await page.route(JOB, answer_stale)
    await page.goto("?job=job-1")
    await expect(page.locator(".notice").first).to_contain_text("The storage does not confirm this state of")


async def test_missing_scope_for_downloads_is_named(
    serve: Serve, open_page: OpenPage, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=b"film")
    token = make_token(scopes=[JOBS_READ])
    page = await open_page(await serve(), "?job=job-1", token=token)
    await expect(page.get_by_role("main")).to_contain_text("the scope outputs:read")
    await expect(page.get_by_role("link", name="Download")).to_have_count(0)


async def test_revoked_token_ends_the_page(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    make_job(**RENDERING)
    service = await serve()
    page = await open_page(service, "?job=job-1")
    await expect(page.get_by_role("main")).to_contain_text("42 %")
    (service.state_dir / "tokens.json").unlink()
    await expect(page.get_by_label("Token")).to_be_visible()


async def test_axe_finds_nothing_on_a_failed_and_a_completed_job(
    serve: Serve, open_page: OpenPage, make_job: MakeJob, axe: AxeCheck
) -> None:
    make_job("failed", status="failed", error="exit code 1", log=b"one\n", phase="x", metadata={"a": 1})
    outputs = [{"name": "beauty", "path": "output/beauty.####.png"}]
    make_job("done", output=b"film", outputs=outputs)
    service = await serve()
    for job_id, screen in (("failed", DARK), ("done", PHONE)):
        page = await open_page(service, f"?job={job_id}", screen=screen)
        await expect(page.get_by_role("main")).to_be_visible()
        await axe(page)


async def test_nothing_is_wider_than_a_phone(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    word = "W" * 3000
    make_job(
        status="failed", error=word, phase=word, projectPath=word, metadata={word: word}, log=word.encode()
    )
    page = await open_page(await serve(), "?job=job-1", screen=PHONE)
    await expect(page.get_by_label("End of the log")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE.width
