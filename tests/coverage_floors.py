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

FULLY_COVERED: Final = (
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

MIN_PERCENT: Final = 90.0
"""Percent of lines and branches that every package has, as coverage counts them."""

MAX_SHOWN: Final = 8
"""So many places at most are named of each file."""


class FileCoverage(NamedTuple):
    """One file's figures."""

    path: str
    total: int
    """Lines and branches there are."""
    covered: int
    missing: tuple[str, ...]
    """Lines, and branches as `from->to`, that no test took."""


def main() -> int:
    """Compare the data of the last run with the floors."""
    messages = shortfalls(file_coverage(_report()))
    for line in messages:
        print(f"coverage: {line}", file=sys.stderr)  # noqa: T201 - this is a command
    return 1 if messages else 0


def file_coverage(report: Mapping[str, Any]) -> list[FileCoverage]:
    """Take the figures out of what `coverage json` reports."""
    return [
        FileCoverage(
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


def shortfalls(files: Iterable[FileCoverage]) -> list[str]:
    """Say what is below its floor, one line each; nothing measured at all is the worst of it."""
    files = list(files)
    messages = [
        f"{file.path} is not complete: {_format_missing(file.missing)}"
        for file in files
        if file.path.startswith(FULLY_COVERED) and file.missing
    ]
    messages += [
        f"{name} was not measured"
        for name in FULLY_COVERED
        if not any(f.path.startswith(name) for f in files)
    ]
    packages: dict[str, list[FileCoverage]] = {}
    for file in files:
        packages.setdefault(_package(file.path), []).append(file)
    for package, members in sorted(packages.items()):
        percent = 100 * sum(f.covered for f in members) / max(sum(f.total for f in members), 1)
        if percent < MIN_PERCENT and any(f.total for f in members):
            worst = max(members, key=lambda f: f.total - f.covered)
            messages.append(
                f"{package} has {percent:.1f} %, under {MIN_PERCENT:g}; most in {worst.path}: "
                f"{_format_missing(worst.missing)}"
            )
    return messages


def _package(path: str) -> str:
    """Name a file's floor: its folder, or itself where it lies in the top folder and is a floor alone."""
    parent = str(Path(path).parent)
    return path if parent == "jobsvc" else parent


def _format_missing(missing: tuple[str, ...]) -> str:
    more = f" and {len(missing) - MAX_SHOWN} more" if len(missing) > MAX_SHOWN else ""
    return ", ".join(missing[:MAX_SHOWN]) + more


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
