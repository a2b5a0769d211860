from __future__ import annotations

from pathlib import Path

import pytest

from jobsvc.storage.jobs import root_listing
from jobsvc.storage.jobs.root_listing import list_job_ids, stat_root


def test_root_stat_is_device_and_inode(tmp_path: Path) -> None:
    status = tmp_path.stat()
    assert stat_root(tmp_path) == (status.st_dev, status.st_ino, False)


def test_root_with_a_job_name_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    assert not stat_root(tmp_path).may_have_jobs
    (tmp_path / "job-1").mkdir()
    assert stat_root(tmp_path).may_have_jobs


def test_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stat_root(tmp_path / "gone")


def test_invalid_job_names_are_counted_and_not_listed(tmp_path: Path) -> None:
    for name in ("a", "b.1", ".hidden", "with space"):
        (tmp_path / name).mkdir()
    listed = list_job_ids(tmp_path)
    assert sorted(listed.ids) == ["a", "b.1"]
    assert listed.ignored == 2


def test_names_are_sorted_by_inode_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_listing, "NAMES_PER_CHUNK", 7)
    for number in range(30):
        (tmp_path / f"job-{number}").mkdir()
    listed = list_job_ids(tmp_path).ids
    assert sorted(listed) == sorted(f"job-{number}" for number in range(30))
    parts = [[(tmp_path / name).stat().st_ino for name in listed[at : at + 7]] for at in range(0, 30, 7)]
    assert parts == [sorted(part) for part in parts]
