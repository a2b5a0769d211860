"""Files that a renderer writes become the outputs of its job."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobsvc.farm import JobError
from jobsvc.runner.outputs import attempt_directory, group_outputs, paths_in_job, publish


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "title"
    folder.mkdir()
    return folder


def write(path: Path, age: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"film")
    os.utime(path, (1_800_000_000 - age,) * 2)
    return path


def test_files_of_an_attempt_are_renamed_into_the_job(job: Path) -> None:
    folder = attempt_directory(job, 1)
    write(folder / "output" / "a.mp4")
    write(folder / "b.jpg")
    assert publish(folder, job) == ["b.jpg", "output/a.mp4"]
    assert sorted(path.name for path in job.iterdir()) == ["b.jpg", "output"]


def test_next_attempt_begins_with_nothing(job: Path) -> None:
    write(attempt_directory(job, 1) / "a.mp4")
    folder = attempt_directory(job, 2)
    assert list(folder.iterdir()) == []
    assert [path.name for path in job.iterdir()] == [".render-2"]


def test_next_attempt_can_keep_all_frames_but_the_newest(job: Path) -> None:
    folder = attempt_directory(job, 1)
    for frame in range(1, 5):
        write(folder / "output" / f"a.{frame}.exr", age=100 - frame)
    folder = attempt_directory(job, 2, keep=True)
    assert sorted(path.name for path in (folder / "output").iterdir()) == ["a.1.exr", "a.2.exr", "a.3.exr"]
    assert [path.name for path in job.iterdir()] == [".render-2"]


def test_reported_files_are_found_where_they_will_be(job: Path) -> None:
    folder = attempt_directory(job, 1)
    files = [write(folder / "a.png"), write(job / "b.png"), folder / "missing.png"]
    assert paths_in_job([*map(str, files), str(files[0])], folder, job) == ["a.png", "b.png"]


def test_file_elsewhere_is_refused_with_the_remedy(job: Path, tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "renders" / "a.png")
    with pytest.raises(JobError, match=r"write to \{output\} or below \{job\}"):
        paths_in_job([str(elsewhere)], attempt_directory(job, 1), job)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([], []),
        (["output/title.mp4"], [("title", "output/title.mp4")]),
        (["output/title_01.mp4"], [("title_01", "output/title_01.mp4")]),
        (["a.0001.exr", "a.0002.exr"], [("a", "a.####.exr")]),
        (["o/9.png", "o/10.png"], [("o", "o/#.png")]),
        (["a.0001.exr", "a.0002.exr", "a.0001.png"], [("a", "a.####.exr"), ("a.0001", "a.0001.png")]),
        (["a/x.0001.exr", "a/x.0002.exr", "b/x.0001.exr", "b/x.0002.exr"],
         [("x", "a/x.####.exr"), ("x-2", "b/x.####.exr")]),
        (["träume 1.png", "träume 2.png"], [("tr-ume", "träume #.png")]),
        (["-.mp4"], [("output", "-.mp4")]),
    ],
)  # fmt: skip
def test_numbered_files_are_a_sequence(paths: list[str], expected: list[tuple[str, str]]) -> None:
    assert group_outputs(paths) == expected
