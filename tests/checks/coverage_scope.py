"""Chooses the tests that measure coverage; it is off in the others, and while tests are collected.

Tracing makes everything that Python 3.11 runs take two thirds longer, the generation of examples included.
So it is off for tests that mostly send requests to a running service, for those that do the same thousands of
times, and for property tests of the upper packages: they reach next to no line that the others do not.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Generator
from types import SimpleNamespace
from typing import Final

import pytest
from coverage import Coverage

import jobsvc

UNMEASURED: Final = (
    *("contract/", "deploy/", "fuzz/", "network_storage/", "slow_storage/", "web/jobs/"),
    *("test_bad_records", "test_created_at", "test_digests", "test_large_records", "test_media_players"),
    *("test_readme", "test_real_render", "test_resuming_clients", "test_samples", "test_streaming_clients"),
    "test_request_cost.py::test_queued_requests_are_all_answered",
    "index/test_job_index.py::test_30000_changes",
    "index/test_job_index.py::test_changes_whose_events_a_stopped_watcher_lost",
    "web/connection/test_hostile_connections",
    "web/connection/test_persistent_connections",
    "web/endpoints/test_log_follow.py::test_client_that_reconnects_often",
    "web/file_transfer/test_output_changes",
    "web/test_url_forms",
)
"""How the ids of tests begin that are not measured."""
UNMEASURED_PROPERTIES: Final = (*UNMEASURED, "index/", "observe/", "web/")
"""The same for property tests."""
MEASURED_CHILDREN: Final = (
    *("cli/", "service/", "index/scan/", "index/watch/", "storage/processes/"),
    "runner/test_run",
)
"""How the ids of tests begin that measure the programs that they start: 0.13 s of CPU time for a watcher."""
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
    return not _id(item).startswith(unmeasured)


def measures_children(item: pytest.Item) -> bool:
    """Whether the programs that a test starts measure coverage."""
    return _id(item).startswith(MEASURED_CHILDREN)


def _id(item: pytest.Item) -> str:
    """Return a test's id below tests/."""
    return item.nodeid.removeprefix("tests/")
