"""Chooses the tests that measure coverage; it is off in the others, and while tests are collected.

Tracing makes everything that Python 3.11 runs take two thirds longer, the generation of examples included.
So it is off for tests that only send requests to a running service, and for property tests of the upper
packages: they reach no line that the others do not.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest
from coverage import Coverage

import jobsvc

UNMEASURED: Final = ("contract", "documented_proxies", "fuzz", "network_storage")
"""Folders whose tests are not measured."""
UNMEASURED_PROPERTIES: Final = (*UNMEASURED, "index", "web")
"""Folders whose property tests are not measured."""
MEASURED_CHILDREN: Final = ("cli", "service", "index/scan", "index/watch", "storage/processes")
"""Folders whose tests measure the programs that they start; that takes 0.13 s of CPU time for a watcher."""
TESTS: Final = Path(__file__).parents[1]
CHILDREN: Final = "COVERAGE_PROCESS_CONFIG"
"""The variable by which coverage starts in child processes."""


class CoverageScope:
    """A plugin of pytest."""

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        self._on = False
        self._children = os.environ.get(CHILDREN)
        for module in pkgutil.walk_packages(jobsvc.__path__, "jobsvc."):
            importlib.import_module(module.name)  # tests import them while coverage is off
        coverage.stop()
        collector = coverage._collector
        if collector is not None and collector.data_lock is not None:
            # Its lock's methods as they are now: the detector of blocking calls replaces those of all locks.
            lock = collector.data_lock
            collector.data_lock = SimpleNamespace(acquire=lock.acquire, release=lock.release)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if self._on is not (wanted := is_measured(item)):
            self._on = wanted
            if wanted:
                self._coverage.start()
            else:
                self._coverage.stop()
        if wanted and self._children is not None and measures_children(item):
            os.environ[CHILDREN] = self._children
        else:
            os.environ.pop(CHILDREN, None)
        return (yield)


def is_measured(item: pytest.Item) -> bool:
    """Whether a test measures coverage."""
    is_property = item.get_closest_marker("hypothesis") is not None
    unmeasured = UNMEASURED_PROPERTIES if is_property else UNMEASURED
    return item.path.relative_to(TESTS).parts[0] not in unmeasured


def measures_children(item: pytest.Item) -> bool:
    """Whether the programs that a test starts measure coverage."""
    return any(item.path.is_relative_to(TESTS / folder) for folder in MEASURED_CHILDREN)
