"""Every screen of the page, with the sample jobs: for checks and pictures of all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from playwright.async_api import Page, expect

OWNER: Final = "demo"
"""Whose jobs the samples are."""


class OneScreen(NamedTuple):
    """A screen: its URL, a text that is on it once it is complete, and what has to be done to reach it."""

    url: str
    text: str
    reach: Callable[[Page], Awaitable[None]] | None = None

    async def open(self, page: Page) -> None:
        """Show the screen on a page that is signed in."""
        await page.goto(self.url)
        if self.reach is not None:
            await self.reach(page)
        await expect(page.locator("body")).to_contain_text(self.text)


async def _press_question_mark(page: Page) -> None:
    await expect(page.get_by_text("opening-title-0042")).to_be_visible()  # then the page listens to keys, too
    await page.keyboard.press("?")


async def _ask_for_link(page: Page) -> None:
    await page.get_by_role("button", name="Copy link").first.click()


async def _create_link(page: Page) -> None:
    await _ask_for_link(page)
    await page.get_by_role("button", name="Create").click()


async def _ask_for_digest(page: Page) -> None:
    await page.get_by_role("button", name="SHA-256").first.click()


SCREENS: Final = {
    "list": OneScreen("./", "opening-title-0042"),
    "filtered-list": OneScreen("?status=failed", "turntable-0013"),
    "no-match": OneScreen("?q=nothing+matches", "No job matches"),
    "keys": OneScreen("./", "Search", _press_question_mark),
    "film": OneScreen("?job=opening-title-0042", "opening-title.mp4"),
    "digest": OneScreen("?job=opening-title-0042", "SHA-256", _ask_for_digest),
    "link-form": OneScreen("?job=opening-title-0042", "without signing in", _ask_for_link),
    "link": OneScreen("?job=opening-title-0042", "It works until", _create_link),
    "sequence": OneScreen("?job=star-turn-0420", "12"),
    "poster": OneScreen("?job=teaser-0031", "teaser.mp4"),
    "failed": OneScreen("?job=turntable-0013", "plate_0019.png is cut short"),
    "rendering": OneScreen("?job=product-spin-0108", "beauty pass"),
    "queued": OneScreen("?job=3f9c2a6e-7d54-4b1e-9a53-5c0d6b1f8e21", "720"),
    "canceled": OneScreen("?job=credits-roll-0005", "150"),
    "unknown-job": OneScreen("?job=no-such-job", "No job"),
    "log": OneScreen("?job=turntable-0013&view=log", "taken by render-02"),
    "log-line": OneScreen("?job=turntable-0013&view=log#L3", "3"),
    "no-log": OneScreen("?job=3f9c2a6e-7d54-4b1e-9a53-5c0d6b1f8e21&view=log", "log"),
}
