"""axe-core, which finds what people with disabilities cannot use: from npm, for tests only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from playwright.async_api import Page

from tests.conftest import put
from tests.programs.npm import package_files

VERSION: Final = "4.14.1"
SHA256: Final = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"

AxeCheck: TypeAlias = Callable[[Page], Awaitable[None]]


def checker(config: pytest.Config) -> AxeCheck:
    """Return a check that fails the test if axe finds anything; skip the test if npm cannot deliver axe."""
    assert config.cache is not None
    script = _script(config.cache.mkdir("axe-core"))

    async def check(page: Page) -> None:
        await page.evaluate(script)
        found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert not found["violations"], "\n".join(map(_describe, found["violations"]))

    return check


def _describe(violation: dict[str, Any]) -> str:
    nodes = [f"  {node['html'][:200]}\n    {node['failureSummary']}" for node in violation["nodes"]]
    return "\n".join([f"{violation['id']}: {violation['help']}", *nodes])


@cache
def _script(folder: Path) -> str:
    """Return the script. `folder` keeps it between runs of the tests."""
    kept = folder / f"{VERSION}.js"
    if not kept.exists():
        put(kept, package_files("axe-core", VERSION, "axe.min.js")[0])
    script = kept.read_bytes()
    assert sha256(script).hexdigest() == SHA256
    return script.decode()
