"""Fixtures for tests of the web page in Debian's Chromium, which Playwright drives, and axe-core.

A test fails if the page writes an error to the console, throws, or violates its Content-Security-Policy.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Protocol

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.page.axe_core import AxeCheck
from tests.page.browser_context import DESKTOP, Problems, Screen, new_context
from tests.programs import chromium
from tests.programs.service_runner import Service

expect.set_options(timeout=20_000)  # as patient as tests/eventually.py, for a busy machine


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    program = chromium.find()
    if program is None:
        pytest.skip("not installed: chromium")
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program, args=chromium.FLAGS)
        yield running
        await running.close()


class OpenPage(Protocol):
    """Opens a page of a service, in a browser profile of its own."""

    async def __call__(
        self, service: Service, url: str = "", *, token: str | None = "", screen: Screen = DESKTOP
    ) -> Page:
        """`url` is relative: `?job=ID`. The browser is signed in by `token`: None for not at all, "" for the
        service's own.
        """


@pytest.fixture
async def page_problems() -> AsyncIterator[Problems]:
    """Collect what the page reports as wrong; a test that causes some on purpose removes it from the list."""
    problems: Problems = []
    yield problems
    assert not problems, "\n".join(problems)


@pytest.fixture
async def open_page(browser: Browser, page_problems: Problems) -> AsyncIterator[OpenPage]:
    async with AsyncExitStack() as contexts:

        async def open_it(
            service: Service, url: str = "", *, token: str | None = "", screen: Screen = DESKTOP
        ) -> Page:
            secret = service.token if token == "" else token
            context = new_context(browser, service.port, secret, screen, page_problems)
            page = await (await contexts.enter_async_context(context)).new_page()
            await page.goto(url or "./")
            return page

        yield open_it


@pytest.fixture
def axe(request: pytest.FixtureRequest) -> AxeCheck:
    """Return what finds problems of people with disabilities on a page."""
    assert request.config.cache is not None
    return AxeCheck(request.config.cache.mkdir("axe-core"))
