"""What `check` reports for a path of a record that cannot be served."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsvc.storage.jobs.path_diagnosis import explain, explain_output
from tests.programs.permissions import bound_by_permissions


@pytest.fixture
def folder() -> Iterator[Path]:
    """A job directory that any user may enter; the directories of pytest are for their owner only."""
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        job = Path(scratch) / "job"
        (job / "output").mkdir(parents=True)
        (job / "output" / "film.mp4").write_bytes(b"film")
        yield job


def test_readable_file_has_no_finding(folder: Path) -> None:
    assert explain(folder, "output/film.mp4") is None
    assert explain(folder, "./output//film.mp4") is None


@pytest.mark.parametrize(
    ("path", "finding"),
    [
        ("", "is empty"),
        ("a\0b", "contains a NUL character"),
        ("output/../film.mp4", "contains '..'"),
        (".", "contains no name"),
        ("output", "is a directory"),
        ("output/none.mp4", "is missing"),
        ("none/film.mp4", "is missing"),
        ("output/film.mp4/film.mp4", "leads through 'output/film.mp4', which is not a directory"),
        ("a/" * 5000 + "b", "is longer than 4096 characters or"),
    ],
)
def test_finding_of_a_relative_path(folder: Path, path: str, finding: str) -> None:
    assert (explain(folder, path) or "").startswith(finding)


def test_symbolic_links_and_devices_are_named(folder: Path) -> None:
    (folder / "link").symlink_to("output")
    (folder / "film").symlink_to("output/film.mp4")
    os.mkfifo(folder / "fifo")
    assert explain(folder, "link/film.mp4") == "leads through 'link', which is a symbolic link"
    assert explain(folder, "film") == "is a symbolic link"
    assert (explain(folder, "fifo") or "").startswith("is a")


def test_absolute_path_is_resolved_below_the_output_roots(folder: Path) -> None:
    film = str(folder / "output" / "film.mp4")
    assert explain(folder, film) == "is absolute, but no --output-root is configured"
    assert explain(folder, film, ["/elsewhere"]) == "is outside every output root"
    assert explain(folder, film, ["/elsewhere", str(folder)]) is None
    assert explain(folder, f"{folder}/none", [str(folder)]) == "is missing"


def test_impossible_name_is_an_error(folder: Path) -> None:
    assert explain(folder, "n" * 300) == "cannot be read: ENAMETOOLONG (File name too long)"


def test_unreadable_file_is_reported_with_mode_and_owner(folder: Path) -> None:
    film = folder / "output" / "film.mp4"
    film.chmod(0o200)
    owner = pwd.getpwuid(film.stat().st_uid).pw_name
    with bound_by_permissions():
        finding = explain(folder, "output/film.mp4")
    assert (
        finding
        == f"cannot be read: EACCES (Permission denied); film.mp4 has mode 0200 and belongs to {owner}"
    )


def test_unreadable_directory_is_reported_with_mode_and_owner(folder: Path) -> None:
    (folder / "output").chmod(0)
    with bound_by_permissions():
        finding = explain(folder, "output/film.mp4")
    (folder / "output").chmod(0o755)
    assert (finding or "").startswith(
        "cannot be read: EACCES (Permission denied); output has mode 0000 and belongs to "
    )


def test_directory_below_an_unreadable_one_has_no_mode(folder: Path) -> None:
    folder.parent.chmod(0)
    with bound_by_permissions():
        finding = explain(folder, "output/film.mp4")
    folder.parent.chmod(0o755)
    assert finding == "cannot be read: EACCES (Permission denied)"


def test_owner_without_a_name_is_shown_by_number(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to a user without a name")
    film = folder / "output" / "film.mp4"
    os.chown(film, 54321, -1)
    film.chmod(0)
    with bound_by_permissions():
        finding = explain(folder, "output/film.mp4")
    assert (finding or "").endswith("film.mp4 has mode 0000 and belongs to 54321")


@pytest.mark.parametrize("path", ["output/film.mp4", "output", "output/", "output/a.####.exr", "a.%04d.exr"])
def test_output_may_be_a_directory_or_a_pattern(folder: Path, path: str) -> None:
    assert explain_output(folder, path) is None


@pytest.mark.parametrize(
    ("path", "finding"),
    [
        (".", "contains no name"),
        ("output/film.mp4/", "is not a directory"),
        ("output/none/", "is missing"),
        ("output/none.mp4", "is missing"),
        ("output/a.##.##.exr", "has 2 placeholders for the frame number; one is allowed"),
        ("none/a.####.exr", "leads through 'none', which is missing"),
        ("output/film.mp4/a.####.exr", "leads through 'output/film.mp4', which is not a directory"),
        ("/renders/a.####.exr", "is absolute, but no --output-root is configured"),
    ],
)
def test_finding_of_an_output(folder: Path, path: str, finding: str) -> None:
    assert explain_output(folder, path) == finding


def test_sequence_may_be_in_the_output_root_itself(folder: Path) -> None:
    roots = [str(folder / "output")]
    assert explain_output(folder, f"{roots[0]}/a.####.exr", roots) is None
    assert explain_output(folder, f"{folder}/a.####.exr", roots) == "is outside every output root"
