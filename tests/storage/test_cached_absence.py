"""Network and FUSE file systems cache that a name is absent: an absence counts only if the directory listing
agrees.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobsvc.storage.files import safe_open
from jobsvc.storage.files.safe_open import PathNotFound
from jobsvc.storage.filesystem import mounts
from jobsvc.storage.filesystem.mounts import may_cache_names
from jobsvc.storage.jobs import batch_read
from jobsvc.storage.jobs.batch_read import BatchRead
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from tests.index.job_dirs import Farm
from tests.programs.permissions import bound_by_permissions


class CachingOs:
    """A module's `os` that caches the absence of a name for a number of calls."""

    def __init__(self, name: str, times: int) -> None:
        self._name = name
        self._times = times
        self.listed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, *args: Any, **kwargs: Any) -> int:
        if path == self._name and self._times > 0:
            self._times -= 1
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return os.open(path, *args, **kwargs)

    def listdir(self, folder: Any) -> list[str]:
        self.listed += 1
        return os.listdir(folder)  # noqa: PTH208 - of a descriptor


@pytest.fixture
def root(farm: Farm) -> JobsRoot:
    farm.put("job")
    return JobsRoot(farm.root)


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path / "jobs")


def caching(monkeypatch: pytest.MonkeyPatch, times: int, *, network: bool = True) -> CachingOs:
    caching = CachingOs("status.json", times)
    monkeypatch.setattr(safe_open, "os", caching)
    monkeypatch.setattr(safe_open, "may_cache_names", lambda _device: network)
    return caching


def test_record_whose_absence_was_cached_is_found(root: JobsRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = caching(monkeypatch, 1)
    assert root.read("job").job.id == "job"
    assert storage.listed == 1


def test_record_that_is_listed_but_not_found_is_a_storage_error(
    root: JobsRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    caching(monkeypatch, 1000)
    with pytest.raises(OSError, match="listed, but not found"):
        root.read("job")


def test_record_that_is_not_listed_is_absent(
    farm: Farm, root: JobsRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    (farm.root / "job" / "status.json").unlink()
    storage = caching(monkeypatch, 0)
    with pytest.raises(PathNotFound):
        root.read("job")
    assert storage.listed == 1


def test_nothing_is_listed_on_a_local_file_system(root: JobsRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = caching(monkeypatch, 1, network=False)
    with pytest.raises(PathNotFound):
        root.read("job")
    assert storage.listed == 0


class NamesCached(JobsRoot):
    """A root in which the absence of every job is cached."""

    def read(self, job_id: str, known: JobSnapshot | None = None) -> JobSnapshot:  # noqa: ARG002
        raise PathNotFound

    def has_name(self, job_id: str) -> bool:  # noqa: ARG002
        return False


@pytest.mark.parametrize("listed", [None, {"job": 1}])
def test_known_job_that_the_root_lists_is_not_absent(
    root: JobsRoot, monkeypatch: pytest.MonkeyPatch, listed: dict[str, int] | None
) -> None:
    monkeypatch.setattr(batch_read, "may_cache_names", lambda _device: True)
    (found,) = BatchRead(NamesCached(root.path), [("job", root.read("job"))], listed=listed)().results
    assert isinstance(found.outcome, OSError)


@pytest.mark.parametrize("known", [True, False])
def test_job_that_the_root_does_not_list_is_absent(
    root: JobsRoot,
    monkeypatch: pytest.MonkeyPatch,
    known: bool,  # noqa: FBT001 - a table
) -> None:
    monkeypatch.setattr(batch_read, "may_cache_names", lambda _device: True)
    snapshot = root.read("job") if known else None
    (found,) = BatchRead(NamesCached(root.path), [("job", snapshot)], listed={})().results
    assert isinstance(found.outcome, PathNotFound)


@pytest.mark.parametrize("successor", [Path.touch, lambda path: path.symlink_to("elsewhere")])
def test_job_whose_name_is_not_a_directory_is_absent(
    root: JobsRoot, farm: Farm, monkeypatch: pytest.MonkeyPatch, successor: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(batch_read, "may_cache_names", lambda _device: True)
    snapshot = root.read("job")
    farm.remove("job")
    successor(farm.root / "job")
    (found,) = BatchRead(root, [("job", snapshot)])().results
    assert isinstance(found.outcome, PathNotFound)


def test_job_that_is_listed_but_has_no_directory_is_a_storage_error(
    root: JobsRoot, farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_read, "may_cache_names", lambda _device: True)
    snapshot = root.read("job")
    farm.remove("job")
    (found,) = BatchRead(root, [("job", snapshot)], listed={"job": 1})().results
    assert isinstance(found.outcome, OSError)


def test_missing_name_in_a_folder_that_cannot_be_listed_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_open, "may_cache_names", lambda _device: True)
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o311)
        folder = os.open(scratch, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with bound_by_permissions():
                assert safe_open.is_listed(folder, "status.json") is False
        finally:
            Path(scratch).chmod(0o700)
            os.close(folder)


def test_file_system_on_a_block_device_caches_no_names() -> None:
    assert not may_cache_names(os.makedev(8, 1))


def test_unknown_file_system_may_cache_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    monkeypatch.setattr(mounts, "MOUNTINFO", table)
    assert may_cache_names(os.makedev(0, 990))
    table.write_text("36 25 0:991 / /mnt rw - nfs4 server:/ rw\n37 25 0:992 / /tmp rw - tmpfs none rw\n")
    assert may_cache_names(os.makedev(0, 991))
    assert not may_cache_names(os.makedev(0, 992))
    assert may_cache_names(os.makedev(0, 993))
