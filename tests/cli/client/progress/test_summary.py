from __future__ import annotations

from pathlib import Path

from jobsvc.cli.client.progress.summary import Summary
from jobsvc.client.models import Downloaded

MIB = 1 << 20
FILE = Downloaded(Path("out/title.mp4"), "job-1", "main", 100 * MIB, '"e"', "ab12")


def summary(files: list[Downloaded], seconds: float, *, verify: bool = True) -> str:
    result = Summary(verify=verify)
    for file in files:
        result.add(file)
    return result.text(seconds)


def test_file_is_described_by_size_time_rate_and_digest() -> None:
    assert summary([FILE], 4.0) == "title.mp4: 100 MiB in 4.0 s, 25.0 MiB/s, verified sha256 ab12"


def test_file_can_be_not_verified() -> None:
    file = FILE._replace(sha256=None)
    assert summary([file], 0, verify=False) == "title.mp4: 100 MiB in 0.0 s, not verified"
    assert summary([file, file], 0, verify=False) == "2 files, 200 MiB in 0.0 s, not verified"


def test_archive_is_verified_file_by_file() -> None:
    archive = FILE._replace(path=Path("job-1.tar"), output=None, sha256=None)
    assert summary([archive], 0) == ("job-1.tar: 100 MiB in 0.0 s, each of its files verified by its sha256")


def test_standard_output_is_named() -> None:
    assert summary([FILE._replace(path=Path("-"))], 0).startswith("standard output: 100 MiB")


def test_rate_is_that_of_this_run() -> None:
    text = summary([FILE._replace(resumed_from=60 * MIB)], 4.0)
    assert (
        text == "title.mp4: 100 MiB in 4.0 s (60.0 MiB were there already), 10.0 MiB/s, verified sha256 ab12"
    )


def test_skipped_file_is_named() -> None:
    assert summary([FILE._replace(skipped=True, sha256=None)], 4.0) == "title.mp4: exists already, skipped"


def test_several_files_are_counted() -> None:
    skipped = FILE._replace(skipped=True, sha256=None)
    assert summary([FILE, FILE], 4.0) == "2 files, 200 MiB in 4.0 s, 50.0 MiB/s, each verified by its sha256"
    assert summary([FILE, skipped], 4.0) == (
        "1 file, 100 MiB in 4.0 s, 25.0 MiB/s, each verified by its sha256, "
        "1 skipped because it exists already"
    )
    assert summary([skipped, skipped], 4.0) == "0 files, 2 skipped because they exist already"
    assert summary([], 4.0) == "no new files"


def test_name_sends_nothing_to_a_terminal() -> None:
    assert summary([FILE._replace(path=Path("a\x1b[2J"))], 1.0).startswith(r"a\x1b[2J: ")
