"""Check minimum coverage: `python -m tests.checks.coverage_floors`, after a test run with coverage.

Code that decides about access, bytes and storage needs every line and branch; all other packages need 90 %.
Exit code 1 lists each file below its minimum and what is missing.
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
"""Files and directories of which every line and branch has to be covered."""

MIN_PERCENT: Final = 90.0
"""Percent of lines and branches for every package, as coverage counts them."""

MAX_SHOWN: Final = 8
"""Maximum number of missing lines and branches listed per file."""


class FileCoverage(NamedTuple):
    """The coverage of one file."""

    path: str
    total: int
    """Number of lines and branches."""
    covered: int
    missing: tuple[str, ...]
    """Uncovered lines, and branches as `from->to`."""


def main() -> int:
    """Compare the data of the last run with the minimum."""
    messages = shortfalls(file_coverage(_report()))
    for line in messages:
        print(f"coverage: {line}", file=sys.stderr)  # noqa: T201 - this is a command
    return 1 if messages else 0


def file_coverage(report: Mapping[str, Any]) -> list[FileCoverage]:
    """Extract the figures from the report of `coverage json`."""
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
    """List what is below its minimum, one line each; packages without data are included."""
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
    """Return a file's package: its directory, or the file itself if it is directly below jobsvc/."""
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
