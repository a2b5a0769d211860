"""The outputs on the page of a job: downloads, links, digests and previews."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Locator, Page, expect

from tests.clients.raw_http import Answer
from tests.conftest import MakeJob, Serve, put
from tests.page.conftest import OpenPage
from tests.programs.service_runner import PROJECT, Service

FILM: Final = PROJECT / "sample_jobs/opening-title-0042/output/opening-title.mp4"
IMAGE: Final = PROJECT / "sample_jobs/poster-frame-0007/output/poster.jpg"
FRAME: Final = min((PROJECT / "sample_jobs/star-turn-0420/output").glob("*.png"))
PLAYED: Final = """video => new Promise(resolve => {
  video.addEventListener("timeupdate", () => video.currentTime > 3.1 && resolve());
})"""
MAIN: Final = {"name": "main", "path": "output/beauty.####.png", "role": "main", "frames": "1001-1004"}

ARCHIVES: Final = ["Download tar", "Download zip"]
EXPECTED_ROWS: Final = [
    ("beauty.####.png", ARCHIVES, "attachment application/x-tar"),
    ("notes", ["Download"], "attachment text/plain"),
    ("film", ["Download"], "inline video/mp4"),
    ("mattes", ARCHIVES, None),
    ("All files", ARCHIVES, "attachment application/zip"),
]
"""Title, downloads and link of the outputs of a job with two sequences."""


def make_sequence(make_job: MakeJob, *further: dict[str, Any]) -> Path:
    """Write a job with frames 1001 and 1002 of four."""
    folder = make_job()
    for frame in (1001, 1002):
        put(folder / f"output/beauty.{frame}.png", FRAME.read_bytes())
    return make_job(status="completed", outputs=[MAIN, *further])


async def downloaded(page: Page, name: str) -> tuple[str, bytes]:
    """Click a link to a download; return the name under which the browser saves it, and the bytes."""
    async with page.expect_download() as started:
        await page.get_by_role("link", name=name, exact=True).click()
    download = await started.value
    return download.suggested_filename, await asyncio.to_thread((await download.path()).read_bytes)


async def created_link(page: Page, service: Service) -> Answer:
    """Open the dialog of the last output, create a link, and request it without a token."""
    await page.get_by_role("button", name="Copy link…").last.click()
    return await answer_of_link(page, service)


async def answer_of_link(page: Page, service: Service) -> Answer:
    """Create a link in the dialog that is open, and request it without a token."""
    await page.get_by_role("button", name="Create and copy").click()
    url = await page.get_by_role("textbox", name="Link").input_value()
    return await service.get(url.removeprefix(f"http://127.0.0.1:{service.port}"), token=None)


async def kind_of_link(output: Locator, service: Service) -> str | None:
    """Create the link of an output; return the type of what it leads to, and whether browsers show it."""
    button = output.get_by_role("button", name="Copy link…")
    if await button.count() == 0:
        return None
    await button.click()
    answer = await answer_of_link(output.page, service)
    await output.page.keyboard.press("Escape")
    await expect(output.page.get_by_role("dialog")).to_have_count(0)
    await expect(output.page.get_by_role("textbox", name="Link")).to_have_count(0)
    return f"{answer.headers['Content-Disposition'].partition(';')[0]} {answer.headers['Content-Type']}"


def dialog_text(page: Page) -> Locator:
    return page.get_by_role("dialog").get_by_role("status").last


async def test_main_output_downloads_under_its_name(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(output=b"film", outputPath="output/träume 夜.mp4")
    page = await open_page(await serve(), "?job=job-1")
    assert await downloaded(page, "Download: träume 夜.mp4") == ("träume 夜.mp4", b"film")


async def test_size_and_type_of_an_output_are_shown(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(output=b"x" * 1500, outputPath="output/film.mxf")
    page = await open_page(await serve(), "?job=job-1")
    await expect(page.locator(".output")).to_contain_text("video/mxf, 1.5 kB")


async def test_sequence_shows_its_files_and_missing_frames(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_sequence(make_job)
    page = await open_page(await serve(), "?job=job-1")
    await expect(page.locator(".output")).to_contain_text("2 files, ")
    await expect(page.locator(".output")).to_contain_text("2 frames missing")


@pytest.mark.parametrize("kind", ["tar", "zip"])
async def test_archives_download_under_the_job_id(
    serve: Serve, open_page: OpenPage, make_job: MakeJob, kind: str
) -> None:
    make_sequence(make_job)
    page = await open_page(await serve(), "?job=job-1")
    name, body = await downloaded(page, f"Download {kind}: beauty.####.png")
    assert name.startswith("job-1")
    assert name.endswith(f".{kind}")
    assert FRAME.read_bytes() in body


async def test_all_files_of_several_outputs_are_counted(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    put(make_sequence(make_job, {"name": "notes", "path": "notes.txt"}) / "notes.txt", b"hello")
    page = await open_page(await serve(), "?job=job-1")
    await expect(page.locator(".output").last).to_contain_text("3 files")


async def test_each_output_has_its_downloads_and_the_links_that_the_api_has(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    others = {"notes": "notes.txt", "film": "film.mp4", "mattes": "mattes.####.png"}
    folder = make_sequence(make_job, *({"name": name, "path": path} for name, path in others.items()))
    for name in ("notes.txt", "film.mp4", "mattes.1001.png"):
        put(folder / name, b"hello")
    service = await serve()
    page = await open_page(service, "?job=job-1")
    await expect(page.locator(".output")).to_have_count(len(EXPECTED_ROWS))
    rows = []
    for output in await page.locator(".output").all():
        title = await output.locator("strong").inner_text()
        rows.append(
            (title, await output.get_by_role("link").all_inner_texts(), await kind_of_link(output, service))
        )
    assert rows == EXPECTED_ROWS


@pytest.mark.parametrize(
    ("path", "title"),
    [("passes/", "passes"), ("a b/c d", "c d")],
)
async def test_main_output_has_the_last_name_of_its_path_as_title(
    serve: Serve, open_page: OpenPage, make_job: MakeJob, jobs_root: Path, path: str, title: str
) -> None:
    put(make_job() / path.strip("/") / "1.png", b"x")
    make_job(status="completed", outputPath=path)
    page = await open_page(await serve(), "?job=job-1")
    await expect(page.locator(".output strong")).to_have_text(title)


async def test_completed_job_without_its_output_says_so(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(status="completed", outputPath="output/film.mp4")
    page = await open_page(await serve(), "?job=job-1")
    await expect(page.get_by_role("main")).to_contain_text("none of its outputs exists")


async def test_link_opens_the_film_without_a_token_until_it_expires(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(output=b"film")
    service = await serve()
    page = await open_page(service, "?job=job-1")
    answer = await created_link(page, service)
    assert answer.body == b"film"
    assert answer.headers["Content-Disposition"].startswith("inline")
    await expect(dialog_text(page)).to_contain_text("It works until")


async def test_link_to_a_sequence_is_to_its_archive(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_sequence(make_job)
    service = await serve()
    answer = await created_link(await open_page(service, "?job=job-1"), service)
    assert answer.headers["Content-Type"] == "application/zip"


async def test_link_that_the_operator_does_not_allow_is_explained(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(output=b"film")
    page = await open_page(await serve(max_link_age=3600), "?job=job-1")
    await page.get_by_role("button", name="Copy link…").click()
    await page.get_by_label("Expires after").select_option("1 day")
    await page.get_by_role("button", name="Create and copy").click()
    await expect(page.get_by_role("dialog")).to_contain_text("does not allow links for so long")


async def test_escape_closes_the_dialog_and_returns_the_focus(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(output=b"film")
    page = await open_page(await serve(), "?job=job-1")
    button = page.get_by_role("button", name="Copy link…")
    await button.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(button).to_be_focused()


@pytest.mark.usefixtures("treat_new_files_as_stable")
async def test_digest_is_computed_on_request(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    make_job(output=b"film")
    page = await open_page(await serve(), "?job=job-1")
    await page.get_by_role("button", name="SHA-256").click()
    await expect(page.locator("code")).to_have_text(sha256(b"film").hexdigest())


@pytest.mark.usefixtures("treat_new_files_as_stable")
async def test_known_digest_is_shown_at_once(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    make_job(output=b"film")
    service = await serve()
    page = await open_page(service, "?job=job-1")
    await page.get_by_role("button", name="SHA-256").click()
    await expect(page.locator("code")).to_be_visible()
    await page.reload()
    await expect(page.locator("code")).to_have_text(sha256(b"film").hexdigest())


async def test_film_plays_and_seeks(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    make_job(output=FILM.read_bytes())
    page = await open_page(await serve(), "?job=job-1")
    video = page.locator("video")
    await expect(video).to_have_js_property("readyState", value=4)
    await video.evaluate("video => { video.currentTime = 3; return video.play(); }")
    await video.evaluate(PLAYED)
    assert await video.evaluate("video => video.videoWidth") == 640


async def test_preview_is_shown_instead_of_the_main_output(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    outputs = [{"name": "proxy", "path": "proxy.mp4", "role": "preview"}]
    folder = make_job(outputPath="output/film.mov", output=b"huge", outputs=outputs)
    put(folder / "proxy.mp4", FILM.read_bytes())
    page = await open_page(await serve(), "?job=job-1")
    await expect(page.locator("video")).to_have_js_property("videoWidth", value=640)


async def test_image_is_shown(serve: Serve, open_page: OpenPage, make_job: MakeJob) -> None:
    make_job(output=IMAGE.read_bytes(), outputPath="output/poster.jpg")
    page = await open_page(await serve(), "?job=job-1")
    await expect(page.get_by_alt_text("Preview")).to_have_js_property("naturalWidth", value=960)


async def test_film_that_the_browser_cannot_play_says_so(
    serve: Serve, open_page: OpenPage, make_job: MakeJob
) -> None:
    make_job(output=b"not a film")
    page = await open_page(await serve(), "?job=job-1")
    await expect(page.locator(".notice")).to_contain_text("This browser cannot show the preview.")
