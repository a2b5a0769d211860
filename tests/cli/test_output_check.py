"""What `jobsvc check` says of jobs with several files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.cli import main
from jobsvc.cli.output_check import missing_ranges
from jobsvc.domain.outputs import Frames
from jobsvc.settings import OPTIONS
from jobsvc.storage.archive import lister
from tests.conftest import MakeJob, put

BEAUTY = {"name": "beauty", "path": "output/beauty.####.exr"}
PREVIEW = {"name": "preview", "path": "output/preview.mp4"}


@pytest.fixture(autouse=True)
def no_host_settings(monkeypatch: pytest.MonkeyPatch, state_dir: Path) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.setenv("JOBSVC_STATE_DIR", str(state_dir))


def check(root: Path) -> tuple[int, list[str]]:
    """Return the exit code, and the lines about jobs, without the job's id."""
    result = CliRunner().invoke(main, ["check", str(root)])
    lines = [line for line in result.output.splitlines() if line.startswith("job-1: ")]
    return result.exit_code, [line.removeprefix("job-1: ") for line in lines]


def put_frames(folder: Path, frames: Iterable[int]) -> None:
    (folder / "output").mkdir(exist_ok=True)
    for frame in frames:
        (folder / "output" / f"beauty.{frame:04d}.exr").write_bytes(b"frame")


def test_job_with_several_files_has_their_number_and_size(jobs_root: Path, make_job: MakeJob) -> None:
    folder = make_job(status="completed", outputs=[BEAUTY, PREVIEW])
    put_frames(folder, range(1001, 1004))
    put(folder / "output" / "preview.mp4", b"preview")
    assert check(jobs_root) == (0, ["4 files, 22 bytes"])


def test_number_of_files_is_a_line_of_its_own_in_json(jobs_root: Path, make_job: MakeJob) -> None:
    put_frames(make_job(status="completed", outputs=[BEAUTY]), [1, 2])
    result = CliRunner().invoke(main, ["check", "--json", str(jobs_root)])
    assert json.loads(result.output.splitlines()[0]) == {"job": "job-1", "files": 2, "bytes": 10}


def test_job_with_one_file_has_no_line(jobs_root: Path, make_job: MakeJob) -> None:
    make_job(output=b"film")
    assert check(jobs_root) == (0, [])


@pytest.mark.parametrize(
    ("frames", "finding"),
    [
        ([1, 2, 4, 5, 9], "4 of 9 frames are missing: 3, 6-8"),
        ([5], "8 of 9 frames are missing: 1-4, 6-9"),
        ([20, -1], None),
        (range(1, 10), None),
        (range(-3, 15), None),
    ],
)
def test_missing_frames_are_named(
    jobs_root: Path, make_job: MakeJob, frames: Iterable[int], finding: str | None
) -> None:
    folder = make_job(status="completed", outputs=[{**BEAUTY, "frames": "1-9"}])
    put_frames(folder, frames)
    findings = [line for line in check(jobs_root)[1] if "missing" in line]
    assert findings == ([f"outputs: 'beauty': 'output/beauty.####.exr': {finding}"] if finding else [])


def test_only_the_first_ranges_of_missing_frames_are_named(jobs_root: Path, make_job: MakeJob) -> None:
    folder = make_job(status="completed", outputs=[{**BEAUTY, "frames": "1-2000000"}])
    put_frames(folder, range(2, 30, 2))
    assert check(jobs_root)[1][0].endswith(": 1999986 of 2000000 frames are missing: 1, 3, 5, 7, 9 and more")


def test_gap_without_frames_in_the_record_is_no_finding(jobs_root: Path, make_job: MakeJob) -> None:
    put_frames(make_job(status="completed", outputs=[BEAUTY]), [1, 9])
    assert check(jobs_root) == (0, ["2 files, 10 bytes"])


@pytest.mark.parametrize(
    ("output", "finding"),
    [
        (PREVIEW, "is missing"),
        ({**BEAUTY, "path": "output/a.##.##.exr"}, "has 2 placeholders for the frame number; one is allowed"),
        ({**BEAUTY, "path": "../a.####.exr"}, "contains '..'"),
        ({**BEAUTY, "path": "/renders/a.####.exr"}, "is absolute, but no --output-root is configured"),
        (BEAUTY, "has no files"),
        ({**BEAUTY, "path": "output/"}, "has no files"),
    ],
)
def test_output_without_files_is_named(
    jobs_root: Path, make_job: MakeJob, output: dict[str, str], finding: str
) -> None:
    (make_job(status="completed", outputs=[output]) / "output").mkdir()
    expected = f"outputs: {output['name']!r}: {output['path']!r} {finding}"
    assert check(jobs_root) == (1, [expected])


def test_main_output_is_named_by_its_key(jobs_root: Path, make_job: MakeJob) -> None:
    (make_job(status="completed", outputPath="output/film.mp4", outputs=[PREVIEW]) / "output").mkdir()
    assert check(jobs_root)[1] == [
        "outputPath: 'output/film.mp4' is missing",
        "outputs: 'preview': 'output/preview.mp4' is missing",
    ]


def test_job_that_is_not_completed_may_lack_its_outputs(jobs_root: Path, make_job: MakeJob) -> None:
    make_job(status="rendering", outputs=[BEAUTY, PREVIEW])
    assert check(jobs_root) == (0, [])


def test_files_that_are_left_out_are_counted(jobs_root: Path, make_job: MakeJob) -> None:
    folder = make_job(status="completed", outputPath="output/")
    put(folder / "output" / "film.mp4", b"film")
    (folder / "output" / "link").symlink_to("film.mp4")
    os.mkfifo(folder / "output" / "fifo")
    with open(os.fsencode(folder) + b"/output/\xff.mp4", "wb"):  # noqa: PTH123 - pathlib knows no such names
        pass
    assert check(jobs_root) == (
        1,
        [
            "outputPath: 'output/': 2 left out: not a regular file, or cannot be read",
            "outputPath: 'output/': 1 left out: the name is not UTF-8, too long, or contains a backslash",
        ],
    )


def test_too_many_files_are_a_finding(
    jobs_root: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lister, "MAX_FILES", 3)
    put_frames(make_job(status="completed", outputs=[BEAUTY]), range(4))
    assert check(jobs_root) == (1, ["outputs: more than 100000 files"])


def test_storage_fault_of_an_output_is_a_finding_of_its_job(
    jobs_root: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_frames(make_job(status="completed", outputs=[BEAUTY]), [1])

    def fail(*_: Any) -> None:
        raise OSError(5, "broken disk")

    monkeypatch.setattr("jobsvc.cli.output_check.list_files", fail)
    assert check(jobs_root) == (1, ["storage: EIO (broken disk)"])


@given(found=st.sets(st.integers(-5, 15)), first=st.integers(-3, 3), length=st.integers(1, 12))
def test_missing_ranges_and_found_frames_make_up_the_expected_ones(
    found: set[int], first: int, length: int
) -> None:
    expected = set(range(first, first + length))
    ranges = list(missing_ranges(sorted(found), Frames(first, first + length - 1)))
    missing = [frame for each in ranges for frame in range(each.first, each.last + 1)]
    assert missing == sorted(expected - found)
    assert all(one.last + 1 < other.first for one, other in pairwise(ranges))
