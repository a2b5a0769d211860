"""The modules of the pages of a job and of its log, which are loaded after the list."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from playwright.async_api import Page

LOADED: Final = (
    """performance.getEntriesByType("resource").map(({name}) => name.split("/").slice(-2).join("/"))"""
)
"""The last two components of what the page has loaded."""
LATER: Final = [
    f"{folder}/{file.name}"
    for folder in ("job", "log")
    for file in files("jobsvc.web.page").joinpath(folder).iterdir()
    if file.name.endswith(".js")
]


async def wait_for_later_pages(page: Page) -> None:
    """Wait until nothing remains to be loaded."""
    await page.wait_for_function(f"later => later.every((path) => {LOADED}.includes(path))", arg=LATER)
