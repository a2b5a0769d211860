"""Jobs on storage that can be made slow or broken: written below the mount, served through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeJob, job_maker
from tests.slow_storage.fuse_mount import FaultyStorage, missing_requirement, mounted_storage
from tests.slow_storage.pending_downloads import way

__all__ = ["way"]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[FaultyStorage]:
    if lacking := missing_requirement():
        pytest.skip(f"there is no {lacking} here")
    scratch = tmp_path / "storage"
    scratch.mkdir()
    try:
        with mounted_storage(scratch) as storage:
            yield storage
    except ChildProcessError as refused:
        if "fuse: " not in str(refused):
            raise
        pytest.skip(f"nothing can be mounted here: {refused}")


@pytest.fixture
def jobs_root(storage: FaultyStorage) -> Path:
    return storage.mountpoint


@pytest.fixture
def make_job(storage: FaultyStorage) -> MakeJob:
    return job_maker(storage.folder)
