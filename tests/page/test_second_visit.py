"""A browser keeps the page's modules and styles, and asks only whether the document has changed."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from playwright.async_api import Page, expect

from tests.conftest import MakeJob, Serve
from tests.page.conftest import OpenPage
from tests.page.later_pages import wait_for_later_pages

MAX_BYTES: Final = 5_000


async def test_second_visit_transfers_next_to_nothing_of_the_page(
    serve: Serve, make_job: MakeJob, open_page: OpenPage
) -> None:
    make_job()
    page = await open_page(await serve())
    await expect(page.get_by_text("job-1")).to_be_visible()
    await wait_for_later_pages(page)
    received = await count_bytes(page)
    await page.goto("./")
    await expect(page.get_by_text("job-1")).to_be_visible()
    assert "/" in received
    assert sum(size for path, size in received.items() if not path.startswith("/api/")) < MAX_BYTES


async def count_bytes(page: Page) -> dict[str, int]:
    """Return the bytes that each path transfers from now on; it is filled while the page loads."""
    paths: dict[str, str] = {}
    received: dict[str, int] = {}
    session = await page.context.new_cdp_session(page)
    session.on(
        "Network.requestWillBeSent",
        lambda event: paths.update({event["requestId"]: urlsplit(event["request"]["url"]).path}),
    )
    session.on(
        "Network.loadingFinished",
        lambda event: received.update({paths[event["requestId"]]: int(event["encodedDataLength"])}),
    )
    await session.send("Network.enable")
    return received
