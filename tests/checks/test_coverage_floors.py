from __future__ import annotations

from typing import Any

import pytest

from tests.checks.coverage_floors import FULLY_COVERED, FileCoverage, file_coverage, shortfalls

ALL = [FileCoverage(name if name.endswith(".py") else f"{name}a.py", 10, 10, ()) for name in FULLY_COVERED]


def test_full_coverage_has_no_shortfall() -> None:
    assert shortfalls(ALL) == []


@pytest.mark.parametrize(
    "name", ["jobsvc/domain/job.py", "jobsvc/web/app/guard.py", "jobsvc/storage/threads/thread_pool.py"]
)
def test_one_missing_branch_is_a_shortfall_where_all_are_required(name: str) -> None:
    file = FileCoverage(name, 1000, 999, ("7->9",))
    assert shortfalls([*ALL, file]) == [f"{name} is not complete: 7->9"]


def test_ninety_percent_is_enough_elsewhere() -> None:
    assert shortfalls([*ALL, FileCoverage("jobsvc/cli/serve.py", 10, 9, ("3",))]) == []
    messages = shortfalls([*ALL, FileCoverage("jobsvc/cli/serve.py", 100, 89, tuple(map(str, range(11))))])
    assert messages == [
        "jobsvc/cli has 89.0 %, under 90; most in jobsvc/cli/serve.py: 0, 1, 2, 3, 4, 5, 6, 7 and 3 more"
    ]


def test_files_of_a_package_are_added_up_and_top_level_files_are_separate() -> None:
    cli = [FileCoverage("jobsvc/cli/a.py", 90, 90, ()), FileCoverage("jobsvc/cli/b.py", 10, 0, ("1",))]
    assert shortfalls([*ALL, *cli]) == []
    top = [
        FileCoverage("jobsvc/__init__.py", 900, 900, ()),
        FileCoverage("jobsvc/service.py", 10, 8, ("1", "2")),
    ]
    assert shortfalls([*ALL, *top]) == [
        "jobsvc/service.py has 80.0 %, under 90; most in jobsvc/service.py: 1, 2"
    ]


def test_unmeasured_code_is_a_shortfall() -> None:
    assert shortfalls([]) == [f"{name} was not measured" for name in FULLY_COVERED]


def test_figures_are_those_of_the_coverage_report() -> None:
    report: dict[str, Any] = {
        "files": {
            "jobsvc/a.py": {
                "summary": {
                    "num_statements": 5,
                    "num_branches": 4,
                    "covered_lines": 4,
                    "covered_branches": 1,
                },
                "missing_lines": [9],
                "missing_branches": [[3, 5], [7, -1], [8, 9]],
            }
        }
    }
    assert file_coverage(report) == [FileCoverage("jobsvc/a.py", 9, 5, ("9", "3->5", "7->exit", "8->9"))]
