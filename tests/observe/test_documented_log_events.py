"""The table of log events in docs/deployment.md has the events of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from tests.programs.service_runner import PROJECT

LEVELS: Final = {"debug", "info", "warning", "error", "exception"}


def logged_events() -> Iterator[str]:
    """Find the first argument of each call of a logger in the service."""
    package = PROJECT / "jobsvc"
    for path in package.rglob("*.py"):
        if path.is_relative_to(package / "client"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr=level),
                    args=[ast.Constant(str(event)), *_],
                ) if level in LEVELS:
                    yield event


def test_table_lists_every_log_event_and_no_other() -> None:
    page = (PROJECT / "docs" / "deployment.md").read_text("utf-8")
    table = page.partition("| `event` | fields | meaning |")[2].partition("\n\n")[0]
    names = {
        name
        for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", row)
    }
    assert names == set(logged_events())
