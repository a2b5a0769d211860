"""The fixtures notice what they are for."""

from __future__ import annotations

from tests.conftest import Serve
from tests.eventually import until
from tests.page.axe_core import AxeCheck
from tests.page.browser_context import DARK, Problems
from tests.page.conftest import OpenPage


async def test_violation_of_the_policy_is_a_problem(
    serve: Serve, open_page: OpenPage, page_problems: Problems
) -> None:
    page = await open_page(await serve())
    await page.evaluate("new Image().src = 'http://elsewhere.invalid/'")
    await until(lambda: any("Content Security Policy" in problem for problem in page_problems))
    page_problems.clear()


async def test_exception_of_the_page_is_a_problem(
    serve: Serve, open_page: OpenPage, page_problems: Problems
) -> None:
    page = await open_page(await serve())
    await page.evaluate("setTimeout(() => { throw new Error('wrong'); })")
    await until(lambda: any("wrong" in problem for problem in page_problems))
    page_problems.clear()


async def test_unreadable_text_fails_the_axe_check(serve: Serve, open_page: OpenPage, axe: AxeCheck) -> None:
    page = await open_page(await serve(), token=None, screen=DARK)
    await page.get_by_role("button").evaluate("button => { button.style = 'color: #777; background: #555'; }")
    assert any("color-contrast" in problem for problem in await axe.problems(page))
