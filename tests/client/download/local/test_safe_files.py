"""Part files and records in a directory that others can write to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobsvc.client import DownloadError
from jobsvc.client.download.local.part_file import PartFile, belongs_to, part_paths
from jobsvc.client.download.local.safe_files import create_new, open_regular, read_regular
from jobsvc.client.download.source import Source

SOURCE = Source("job-1", "main", "film.mp4", "/api/jobs/job-1/files/main/film.mp4", '"etag"', 4)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A file that is not of the download."""
    path = tmp_path / "other"
    path.write_bytes(b"other")
    return path


@pytest.fixture
def part(tmp_path: Path) -> PartFile:
    return PartFile(part_paths(tmp_path / "film.mp4"), SOURCE)


def test_part_file_that_becomes_a_link_is_not_written_through(part: PartFile, other: Path) -> None:
    part.paths.part.unlink()
    part.paths.part.symlink_to(other)
    with pytest.raises(OSError, match="symbolic"):
        part.open("r+b")
    part.close()


def test_part_file_that_becomes_another_file_is_not_written(part: PartFile, other: Path) -> None:
    other.rename(part.paths.part)
    with pytest.raises(DownloadError, match="replaced"):
        part.open("r+b")
    part.close()


def test_part_file_with_another_name_is_not_emptied(tmp_path: Path, other: Path) -> None:
    os.link(other, tmp_path / "film.mp4.part")
    PartFile(part_paths(tmp_path / "film.mp4"), SOURCE).close()
    assert other.read_bytes() == b"other"


def test_part_file_that_is_too_long_starts_over(part: PartFile) -> None:
    part.paths.part.write_bytes(b"film and more")
    part.add(0, 4)
    part.save()
    part.close()
    again = PartFile(part.paths, SOURCE)
    assert again.received == 0
    again.close()


def test_part_file_that_became_longer_gets_no_name(part: PartFile) -> None:
    part.paths.part.write_bytes(b"film and more")
    with pytest.raises(DownloadError, match="changed"):
        part.check_unchanged()
    part.close()


def test_record_is_written_to_no_other_file(part: PartFile, other: Path) -> None:
    os.link(other, part.paths.new_record)
    part.add(0, 4)
    part.save()
    part.close()
    assert other.read_bytes() == b"other"


def test_record_that_is_a_pipe_is_ignored(tmp_path: Path) -> None:
    paths = part_paths(tmp_path / "film.mp4")
    paths.part.write_bytes(b"film")
    os.mkfifo(paths.record)
    assert not belongs_to(paths, SOURCE)
    PartFile(paths, SOURCE).close()


def test_link_is_not_opened(tmp_path: Path, other: Path) -> None:
    (tmp_path / "link").symlink_to(other)
    for write in (False, True):
        with pytest.raises(OSError, match="symbolic"):
            open_regular(tmp_path / "link", write=write)


def test_no_more_than_the_maximum_is_read(other: Path) -> None:
    assert read_regular(other, 3) == b"oth"


def test_new_file_replaces_a_link(tmp_path: Path, other: Path) -> None:
    (tmp_path / "link").symlink_to(other)
    with create_new(tmp_path / "link") as file:
        file.write(b"new")
    assert (other.read_bytes(), (tmp_path / "link").read_bytes()) == (b"other", b"new")
