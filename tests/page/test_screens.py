"""axe-core finds nothing on any screen, and nothing is wider than a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from jobsvc.cli.demo import copy_samples
from tests.conftest import MakeToken, Serve
from tests.page.axe_core import AxeCheck
from tests.page.browser_context import DARK, DESKTOP, PHONE, Screen
from tests.page.conftest import OpenPage
from tests.page.screens import OWNER, SCREENS

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("screen", [DESKTOP, DARK, PHONE], ids=["light", "dark", "phone"])
async def test_axe_finds_nothing_on_any_screen(
    serve: Serve, make_token: MakeToken, jobs_root: Path, open_page: OpenPage, axe: AxeCheck, screen: Screen
) -> None:
    copy_samples(jobs_root)
    token = make_token(OWNER)
    page = await open_page(await serve(), token=token, screen=screen)
    found = {}
    for name, one in SCREENS.items():
        await one.open(page)
        if problems := await axe.problems(page):
            found[name] = problems
    assert found == {}


@pytest.mark.parametrize("screen", [DESKTOP, DARK], ids=["light", "dark"])
async def test_axe_finds_nothing_on_the_form_of_the_token(
    serve: Serve, open_page: OpenPage, axe: AxeCheck, screen: Screen
) -> None:
    page = await open_page(await serve(), token=None, screen=screen)
    await page.get_by_label("Token").fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).not_to_be_empty()
    await axe(page)


async def test_no_screen_is_wider_than_a_phone(
    serve: Serve, make_token: MakeToken, jobs_root: Path, open_page: OpenPage
) -> None:
    copy_samples(jobs_root)
    token = make_token(OWNER)
    page = await open_page(await serve(), token=token, screen=PHONE)
    wider = {}
    for name, one in SCREENS.items():
        await one.open(page)
        if (pixels := await page.evaluate(OVERFLOW)) > 0:
            wider[name] = pixels
    assert wider == {}
