"""From the link of `jobsvc demo`, through a live render, to the playing film and its verified download."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, expect

from jobsvc.cli.demo import LIVE_JOB
from tests.page.browser_context import DESKTOP, Problems, new_context
from tests.programs.external_programs import needs, running_program

RENDERED_WITHIN_MS: Final = 60_000
"""The render takes 20 s: 4 s in the queue and a second for each second of film."""
# Resolves once the film has shown frames of more than half a second.
PLAY: Final = """async (film) => {
  await film.play();
  while (film.currentTime < 0.5 || film.getVideoPlaybackQuality().totalVideoFrames < 5) {
    await new Promise((resolve) => film.addEventListener("timeupdate", resolve, {once: true}));
  }
}"""


@needs("ffmpeg")
async def test_link_of_the_demo_leads_to_the_playing_film_and_its_download(
    browser: Browser, page_problems: Problems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with (
        demo() as (port, link),
        new_context(browser, port, None, DESKTOP, page_problems) as context,
    ):
        page = await context.new_page()
        await page.goto(link)
        await expect(page).to_have_url(re.compile("/$"))
        await page.get_by_role("link", name=LIVE_JOB).click()
        main = page.get_by_role("main")
        await expect(main.get_by_text("rendering").first).to_be_visible(timeout=RENDERED_WITHIN_MS)
        await expect(main.get_by_text("completed").first).to_be_visible(timeout=RENDERED_WITHIN_MS)
        await page.locator("video").evaluate(PLAY)
        await page.get_by_role("button", name="SHA-256").click()
        digest = await main.get_by_text(re.compile("^[0-9a-f]{64}$")).inner_text()
        async with page.expect_download() as downloading:
            await page.get_by_role("link", name="Download").click()
        downloaded = await downloading.value
        assert downloaded.suggested_filename == f"{LIVE_JOB}.mp4"
        assert sha256((await downloaded.path()).read_bytes()).hexdigest() == digest


@asynccontextmanager
async def demo() -> AsyncIterator[tuple[int, str]]:
    """Run the demo; yield its port and the link that it prints."""
    words = ("-u", "-m", "jobsvc", "demo", "--port", "0")
    async with running_program(sys.executable, *words, capture=True) as process:
        assert process.stdout is not None
        printed = await process.stdout.readuntil(b"#token=") + await process.stdout.readline()
        link = printed.decode().split()[-1]
        yield urlsplit(link).port or 0, link
