"""axe-core, which finds what people with disabilities cannot use: from npm, for tests only."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page

from tests.conftest import put
from tests.programs.npm import package_files

VERSION: Final = "4.14.1"
SHA256: Final = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"


class AxeCheck:
    """Finds what is wrong on a page. `folder` keeps the script between runs of the tests."""

    def __init__(self, folder: Path) -> None:
        """Skip the test if npm cannot deliver axe."""
        self._script = _script(folder)

    async def __call__(self, page: Page) -> None:
        """Fail the test if axe finds anything."""
        assert await self.problems(page) == []

    async def problems(self, page: Page) -> list[str]:
        """Return what axe finds, as text."""
        await page.evaluate(self._script)
        found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [_describe(violation) for violation in found["violations"]]


def _describe(violation: dict[str, Any]) -> str:
    nodes = [f"  {node['html'][:200]}\n    {node['failureSummary']}" for node in violation["nodes"]]
    return "\n".join([f"{violation['id']}: {violation['help']}", *nodes])


@cache
def _script(folder: Path) -> str:
    kept = folder / f"{VERSION}.js"
    if not kept.exists():
        put(kept, package_files("axe-core", VERSION, "axe.min.js")[0])
    script = kept.read_bytes()
    assert sha256(script).hexdigest() == SHA256
    return script.decode()
