"""Tests of the blocking-call detector: a pytest session within this one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_only_tests_that_block_the_loop_fail() -> None:
    """Also if the exception of the blocking call is swallowed, and in a bare loop callback."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "tests/checks/blocking_calls_samples.py",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    ends = [line.split(maxsplit=2) for line in done.stdout.splitlines() if "::test_" in line]
    failed = {test.partition("::")[2] for word, test, *_ in ends if word in {"FAILED", "ERROR"}}
    passed = {test.partition("::")[2] for word, test, *_ in ends if word == "PASSED"} - failed
    assert {name.startswith("test_bad") for name in failed} == {True}, done.stdout
    assert len(failed) == 7 + 7 + 1, done.stdout
    assert passed == {"test_good_thread", "test_good_by_the_test_itself", "test_good_without_a_loop"}
