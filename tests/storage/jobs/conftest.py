"""Fixtures of tests that read job directories: none may leave a descriptor open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsvc.storage.jobs.reader import JobsRoot
from tests.checks.open_fds import open_paths


@pytest.fixture(autouse=True)
def no_descriptor_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert open_paths(tmp_path) == []


@pytest.fixture
def root(jobs_root: Path) -> JobsRoot:
    return JobsRoot(jobs_root)
