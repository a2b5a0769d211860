"""Where files are written: names of the service never lead elsewhere."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.client import DownloadError, File
from jobsvc.client.download.local import targets
from jobsvc.client.download.local.part_file import part_paths
from jobsvc.client.download.local.targets import safe_parts, targets_of

NAMES = st.lists(
    st.one_of(
        st.sampled_from(["..", ".", "", "a", "b", "CON", "a.part", "c:", "\0", "\\", "x\\..\\y"]),
        st.text(st.characters(codec="utf-8"), max_size=10),
    ),
    min_size=1,
    max_size=4,
).map("/".join)


def file(path: str, output: str = "main") -> File:
    return File("job-1", output, path, None, 1, datetime.now(UTC), "video/mp4", '"etag"', None)


@given(st.lists(st.tuples(NAMES, st.sampled_from(["main", "other"])), min_size=1, max_size=4))
def test_any_names_stay_inside(names: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        to = Path(scratch) / "to"
        to.mkdir()
        try:
            found = targets_of([file(path, output) for path, output in names], to)
        except DownloadError:
            found = []
        real = os.path.realpath(to)
        for target in found:
            assert os.path.realpath(target).startswith(real + os.sep)
            assert target.parent.is_dir()
        assert len(set(found)) == len(found)
        assert [path.name for path in Path(scratch).iterdir()] == ["to"]


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "..", "../a", "a/../b", "a/..", "./a", "a//b", "a/", "a\\b", "a\0b"]
)
def test_unsafe_names(path: str) -> None:
    with pytest.raises(DownloadError):
        safe_parts(path)


@pytest.mark.parametrize(
    "path",
    ["c:", "c:x", "a:stream", "CON", "con.txt", "a/NUL", "aux.tar.gz", "COM1", "lpt9.x", "COM\u00b9",
     "CONIN$", "a.", "a ", "a./b", "a?", "a*", "a|b", '"a"', "a<b", "a\x01", "nul .txt"],
)  # fmt: skip
def test_names_that_windows_does_not_allow(path: str) -> None:
    assert safe_parts(path, windows=False) == tuple(path.split("/"))
    with pytest.raises(DownloadError):
        safe_parts(path, windows=True)


@pytest.mark.parametrize("path", ["a", "console", "com10", "a/b.c", "\u00fcber.exr", ".hidden", "a b"])
def test_names_that_are_allowed_everywhere(path: str) -> None:
    assert safe_parts(path, windows=True) == tuple(path.split("/"))


def test_link_that_leads_outside_is_refused(tmp_path: Path) -> None:
    outside, to = tmp_path / "outside", tmp_path / "to"
    outside.mkdir()
    to.mkdir()
    (to / "a").symlink_to(outside)
    with pytest.raises(DownloadError, match="symbolic link"):
        targets_of([file("a/b"), file("c")], to)
    assert not list(outside.iterdir())


def test_link_that_leads_to_nothing_outside_is_refused(tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "a").symlink_to(tmp_path / "missing")
    with pytest.raises(DownloadError, match="symbolic link"):
        targets_of([file("a/b"), file("c")], to)
    assert not (tmp_path / "missing").exists()


def test_target_directory_may_be_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "to").symlink_to(real)
    targets_of([file("a/b"), file("c")], tmp_path / "to")
    assert (real / "a").is_dir()


def test_names_that_differ_in_case_are_one_file_on_some_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [file("Frame.exr"), file("frame.exr")]
    targets_of(files, tmp_path)
    monkeypatch.setattr(targets, "is_insensitive", lambda _root: True)
    with pytest.raises(DownloadError, match="same file"):
        targets_of(files, tmp_path)


def test_file_and_directory_of_the_same_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="same file"):
        targets_of([file("a"), file("a/b")], tmp_path)


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=255))
def test_names_of_part_files_fit(name: str) -> None:
    if len(name.encode()) <= 255 and name not in {".", ".."}:
        paths = part_paths(Path("/to") / name)
        assert all(len(path.name.encode()) <= 255 for path in paths)
        assert len(set(paths)) == 3


def test_long_names_have_different_part_files() -> None:
    first, second = (part_paths(Path(f"/to/{'x' * 250}{end}")) for end in "ab")
    assert first.part != second.part
