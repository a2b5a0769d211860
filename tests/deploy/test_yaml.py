"""All YAML files for operators are well formed: no duplicate keys, consistent indentation, short lines."""

from __future__ import annotations

import sys
from typing import Final

from tests.programs.external_programs import run
from tests.programs.service_runner import PROJECT

RULES: Final = """
extends: default
rules:
  line-length: {max: 130}
  document-start: disable
  truthy: {check-keys: false}
  comments: {min-spaces-from-content: 1}
  comments-indentation: disable
"""


async def test_yamllint_finds_nothing() -> None:
    done = await run(sys.executable, "-m", "yamllint", "--strict", "--config-data", RULES, PROJECT / "deploy")
    assert done.exit_code == 0, done.stdout.decode() + done.stderr
