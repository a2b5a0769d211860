"""Holds coverage to its floors: `python -m tests.coverage_floors`, after a test run that was measured.

What decides over rights, bytes and storage has every line and branch taken by a test; the rest, nine in ten.
Exit code 1 names each place that lacks, and what it lacks.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from coverage import Coverage

COMPLETE: Final = (
    "jobsvc/domain/",
    "jobsvc/storage/",
    "jobsvc/web/headers/byte_ranges.py",
    "jobsvc/web/headers/conditional.py",
    "jobsvc/web/connection/head_cache.py",
    "jobsvc/web/auth/bearer.py",
    "jobsvc/web/app/guard.py",
    "jobsvc/web/auth/signed_links.py",
)
"""Files, and folders of files, of which every line and branch is covered."""

FLOOR: Final = 90.0
"""Percent of lines and branches that every package has, as coverage counts them."""

SHOWN: Final = 8
"""So many places at most are named of each file."""


class Measured(NamedTuple):
    """One file's figures."""

    path: str
    total: int
    """Lines and branches there are."""
    covered: int
    lacks: tuple[str, ...]
    """Lines, and branches as `from->to`, that no test took."""


def main() -> int:
    """Compare the data of the last run with the floors."""
    short = shortfalls(measured(_report()))
    for line in short:
        print(f"coverage: {line}", file=sys.stderr)  # noqa: T201 - this is a command
    return 1 if short else 0


def measured(report: Mapping[str, Any]) -> list[Measured]:
    """Take the figures out of what `coverage json` reports."""
    return [
        Measured(
            path,
            of["summary"]["num_statements"] + of["summary"]["num_branches"],
            of["summary"]["covered_lines"] + of["summary"]["covered_branches"],
            (
                *(str(line) for line in of["missing_lines"]),
                *(f"{start}->{'exit' if end < 0 else end}" for start, end in of["missing_branches"]),
            ),
        )
        for path, of in report["files"].items()
    ]


def shortfalls(files: Iterable[Measured]) -> list[str]:
    """Say what is below its floor, one line each; nothing measured at all is the worst of it."""
    files = list(files)
    said = [
        f"{file.path} is not complete: {_named(file.lacks)}"
        for file in files
        if file.path.startswith(COMPLETE) and file.lacks
    ]
    said += [
        f"{name} was not measured" for name in COMPLETE if not any(f.path.startswith(name) for f in files)
    ]
    packages: dict[str, list[Measured]] = {}
    for file in files:
        packages.setdefault(_package(file.path), []).append(file)
    for package, members in sorted(packages.items()):
        percent = 100 * sum(f.covered for f in members) / max(sum(f.total for f in members), 1)
        if percent < FLOOR and any(f.total for f in members):
            worst = max(members, key=lambda f: f.total - f.covered)
            said.append(
                f"{package} has {percent:.1f} %, under {FLOOR:g}; most in {worst.path}: {_named(worst.lacks)}"
            )
    return said


def _package(path: str) -> str:
    """Name a file's floor: its folder, or itself where it lies in the top folder and is a floor alone."""
    parent = str(Path(path).parent)
    return path if parent == "jobsvc" else parent


def _named(lacks: tuple[str, ...]) -> str:
    more = f" and {len(lacks) - SHOWN} more" if len(lacks) > SHOWN else ""
    return ", ".join(lacks[:SHOWN]) + more


def _report() -> dict[str, Any]:
    data = Coverage()
    data.load()
    with tempfile.TemporaryDirectory() as folder:
        outfile = Path(folder) / "coverage.json"
        data.json_report(outfile=str(outfile))
        report: dict[str, Any] = json.loads(outfile.read_bytes())
    return report


if __name__ == "__main__":
    sys.exit(main())
