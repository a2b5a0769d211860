"""Complete files get their names; existing ones are respected."""

from __future__ import annotations

import errno
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobsvc.client import DownloadError, FileExists
from jobsvc.client.download.local.part_file import PartFile, part_paths
from jobsvc.client.download.local.placement import check_space, free_name, looks_identical, place
from jobsvc.client.download.source import Source

MODIFIED = datetime(2026, 5, 4, 3, 2, 1, 123_000, UTC)
SOURCE = Source("job-1", "main", "film.mp4", "/", '"etag"', 4, modified_at=MODIFIED)


def complete(target: Path, source: Source = SOURCE) -> PartFile:
    part = PartFile(part_paths(target), source)
    with part.open("r+b") as file:
        file.write(b"film")
    part.add(0, 4)
    part.save()
    return part


def test_file_gets_its_name_and_time(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    assert place(complete(target), target, "error") == target
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    assert target.read_bytes() == b"film"
    assert target.stat().st_mtime_ns == 1_777_863_721_123_000_000


@pytest.mark.parametrize("exists", ["error", "skip"])
def test_target_that_appeared_meanwhile_is_not_replaced(exists: str, tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    part = complete(target)
    target.write_bytes(b"mine")
    with pytest.raises(FileExists):
        place(part, target, exists)  # type: ignore[arg-type]
    assert target.read_bytes() == b"mine"
    part.close()


def test_target_that_appeared_meanwhile_is_replaced_if_it_may_be(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    part = complete(target)
    target.write_bytes(b"mine")
    place(part, target, "overwrite")
    assert target.read_bytes() == b"film"


def test_target_that_appeared_meanwhile_is_left_and_the_next_name_taken(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    part = complete(target)
    target.write_bytes(b"mine")
    assert place(part, target, "rename") == tmp_path / "film-1.mp4"
    assert target.read_bytes() == b"mine"


def test_link_at_the_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    part = complete(target)
    (tmp_path / "elsewhere").write_bytes(b"mine")
    target.symlink_to(tmp_path / "elsewhere")
    place(part, target, "overwrite")
    assert not target.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(_source: object, _target: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", link)
    target = tmp_path / "film.mp4"
    place(complete(target), target, "error")
    assert target.read_bytes() == b"film"
    part = complete(target)
    with pytest.raises(FileExists):
        place(part, target, "error")
    part.close()


def test_part_file_of_another_program_is_not_renamed(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    part = complete(target)
    part.paths.part.unlink()
    part.paths.part.write_bytes(b"else")
    with pytest.raises(DownloadError, match="replaced"):
        place(part, target, "error")
    part.close()


def test_free_name(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    assert free_name(target, SOURCE, ()) == target
    assert free_name(target, SOURCE, {target}) == tmp_path / "film-1.mp4"
    complete(target).close()
    assert free_name(target, SOURCE, ()) == target
    assert free_name(target, SOURCE._replace(job_id="job-2"), ()) == tmp_path / "film-1.mp4"


def test_identical_file(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    assert not looks_identical(target, SOURCE)
    place(complete(target), target, "error")
    assert looks_identical(target, SOURCE)
    assert not looks_identical(target, SOURCE._replace(size=5))
    os.utime(target, (0, 0))
    assert not looks_identical(target, SOURCE)


def test_full_disk_is_found_before_anything_is_received(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1_000_000))
    target, part = tmp_path / "film.mp4", tmp_path / "film.mp4.part"
    check_space([(target, part, 1_000_000)])
    with pytest.raises(DownloadError, match=r"MiB are needed in .*, but only [0-9,.]+ MiB are free"):
        check_space([(target, part, 600_000), (target, part, 600_000)])
    part.write_bytes(os.urandom(300_000))
    check_space([(target, part, 1_200_000)])


def test_directory_that_is_gone_is_an_error_of_the_client(tmp_path: Path) -> None:
    target = tmp_path / "gone" / "film.mp4"
    with pytest.raises(DownloadError, match="gone cannot be read"):
        check_space([(target, part_paths(target).part, 1)])
