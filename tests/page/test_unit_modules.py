"""Runs the unit tests of the page's modules: `tests/page/unit/*.test.mjs`, in Node."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.programs.external_programs import needs, run

FILES: Final = sorted(Path(__file__).with_name("unit").glob("*.test.mjs"))


@needs("node")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.partition(".")[0])
async def test_unit_tests_of_module_pass(file: Path) -> None:
    ran = await run("node", "--test", file)
    assert ran.exit_code == 0, ran.stdout.decode() + ran.stderr
