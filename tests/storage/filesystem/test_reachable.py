from __future__ import annotations

from pathlib import Path

import pytest

from jobsvc.storage.filesystem import mounts
from jobsvc.storage.filesystem.reachable import Mounts

TABLE = r"""
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 8:2 / /no-such/data rw - xfs /dev/sdb rw
3 1 8:2 /anna /no-such/her\040own rw - xfs /dev/sdb rw
4 1 8:2 /bert/shots /no-such/shots rw - xfs /dev/sdb rw
5 2 8:3 / /no-such/data/bert rw - xfs /dev/sdc rw
6 2 8:2 /carl /no-such/data/mounted rw - xfs /dev/sdb rw
too short
"""


def names(outer: str, inner: str) -> list[str]:
    return list(Mounts(TABLE).names_through(Path(f"/no-such/{outer}"), Path(f"/no-such/{inner}")))


@pytest.mark.parametrize(
    ("outer", "inner", "found"),
    [
        ("data", "data", ["data"]),
        ("data", "data/anna/x", ["data/anna/x"]),
        ("data/anna", "data", []),
        ("data", "her own", ["data/anna"]),
        ("her own", "data/anna/x", ["her own/x"]),
        ("her own", "data", []),
        ("data", "shots", []),  # something else is mounted over it
        ("data", "data/carl/x", ["data/carl/x", "data/mounted/x"]),
        ("dat", "data", []),
        ("", "data", ["data"]),
        ("", "her own", ["data/anna", "her own"]),
    ],
)
def test_directory_is_reachable_by_each_name_that_mounts_give_it(
    outer: str, inner: str, found: list[str]
) -> None:
    assert names(outer, inner) == [f"/no-such/{name}" for name in found]


def test_root_directory_leads_to_each_directory() -> None:
    through_root = list(Mounts(TABLE).names_through(Path("/"), Path("/no-such/x")))
    assert through_root == ["/no-such/x"]


def test_directories_are_compared_by_name_without_a_mount_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "missing")
    now = Mounts.now()
    assert list(now.names_through(tmp_path, tmp_path / "x")) == [str(tmp_path / "x")]
    assert list(now.names_through(tmp_path / "x", tmp_path)) == []


def test_symbolic_links_are_followed_in_both_paths(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    for outer, inner in (("link", "data/x"), ("data", "link/x")):
        found = list(Mounts.now().names_through(tmp_path / outer, tmp_path / inner))
        assert found == [str(tmp_path / outer / "x")]
