"""Part files, their records and locks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobsvc.client import DownloadError
from jobsvc.client.download.local.part_file import PartFile, part_paths
from jobsvc.client.download.source import Source

SOURCE = Source("job-1", "main", "film.mp4", "/api/jobs/job-1/files/main/film.mp4", '"etag"', 100)


def open_part(directory: Path, source: Source = SOURCE) -> PartFile:
    return PartFile(part_paths(directory / "film.mp4"), source)


def interrupted(directory: Path) -> None:
    """Leave a part file of which 30 bytes were received."""
    part = open_part(directory)
    with part.open("r+b") as file:
        file.write(b"x" * 20)
        file.seek(50)
        file.write(b"x" * 10)
    part.add(0, 20)
    part.add(50, 60)
    part.save()
    part.close()


def test_later_run_continues(tmp_path: Path) -> None:
    interrupted(tmp_path)
    part = open_part(tmp_path)
    assert list(part.ranges) == [(0, 20), (50, 60)]
    assert part.resumed_from == 30
    part.close()


def test_record_from_before_the_start_of_the_system_is_ignored_without_verification(tmp_path: Path) -> None:
    interrupted(tmp_path)
    started_at = time.time() - time.monotonic()
    paths = part_paths(tmp_path / "film.mp4")
    for is_verified, modified_at, received in (
        (False, started_at + 10, 30),
        (True, started_at - 10, 30),
        (False, started_at - 10, 0),
    ):
        os.utime(paths.record, (0, modified_at))
        part = PartFile(paths, SOURCE, is_verified=is_verified)
        assert part.received == received
        part.close()


def test_record_has_no_token(tmp_path: Path) -> None:
    interrupted(tmp_path)
    record = json.loads((tmp_path / "film.mp4.part.json").read_bytes())
    assert record == {
        "job": "job-1",
        "output": "main",
        "path": "film.mp4",
        "etag": '"etag"',
        "size": 100,
        "ranges": [[0, 20], [50, 60]],
    }


@pytest.mark.parametrize(
    "other",
    [{"job_id": "job-2"}, {"output": "other"}, {"path": "b"}, {"etag": '"b"'}, {"size": 101}],
    ids=lambda other: next(iter(other)),
)
def test_other_source_starts_over(other: dict[str, Any], tmp_path: Path) -> None:
    interrupted(tmp_path)
    part = open_part(tmp_path, SOURCE._replace(**other))
    assert (part.received, part.resumed_from) == (0, 0)
    assert (tmp_path / "film.mp4.part").stat().st_size == 0
    assert not (tmp_path / "film.mp4.part.json").exists()
    part.close()


def _damage(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(record: Path) -> None:
        document = json.loads(record.read_bytes())
        change(document)
        record.write_text(json.dumps(document))

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.write_bytes(b""),
        lambda record: record.write_bytes(b"{"),
        lambda record: record.write_bytes(b"[]"),
        lambda record: record.write_bytes(b"\xff"),
        lambda record: record.write_bytes(b"[" * 100_000),
        lambda record: record.unlink(),
        _damage(lambda document: document.update(ranges=[[0, 101]])),
        _damage(lambda document: document.update(ranges=[[0, 90]])),  # longer than the part file
        _damage(lambda document: document.pop("ranges")),
        _damage(lambda document: document.update(more=1)),
    ],
)  # fmt: skip
def test_record_that_is_not_valid_starts_over(damage: Callable[[Path], object], tmp_path: Path) -> None:
    interrupted(tmp_path)
    damage(tmp_path / "film.mp4.part.json")
    part = open_part(tmp_path)
    assert part.received == 0
    part.close()


def test_record_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    interrupted(tmp_path)
    record = tmp_path / "film.mp4.part.json"
    record.rename(tmp_path / "elsewhere")
    record.symlink_to(tmp_path / "elsewhere")
    part = open_part(tmp_path)
    assert part.received == 0
    part.close()
    assert (tmp_path / "elsewhere").exists()


def test_part_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / "film.mp4.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DownloadError):
        open_part(tmp_path)
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_part_file_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "film.mp4.part")
    with pytest.raises(DownloadError):
        open_part(tmp_path)


def test_second_process_is_refused(tmp_path: Path) -> None:
    code = (
        "import fcntl, sys\n"
        f"file = open({str(tmp_path / 'film.mp4.part')!r}, 'w')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(DownloadError, match="another process"):
            open_part(tmp_path)
        other.communicate()
    open_part(tmp_path).close()


def test_record_is_written_after_each_chunk(tmp_path: Path, small_segments: None) -> None:
    source = SOURCE._replace(size=100_000)
    part = open_part(tmp_path, source)
    record = tmp_path / "film.mp4.part.json"
    part.add(0, 9_999)
    assert not record.exists()
    part.add(50_000, 50_001)
    assert json.loads(record.read_bytes())["ranges"] == [[0, 9_999], [50_000, 50_001]]
    part.close()


def test_replaced_part_file_is_noticed(tmp_path: Path) -> None:
    part = open_part(tmp_path)
    (tmp_path / "film.mp4.part").write_bytes(b"x" * 100)
    part.check_unchanged()
    (tmp_path / "film.mp4.part").unlink()
    (tmp_path / "film.mp4.part").touch()
    with pytest.raises(DownloadError, match="replaced"):
        part.check_unchanged()
    part.close()


def test_suspended_part_file_that_was_changed_is_noticed(tmp_path: Path) -> None:
    interrupted(tmp_path)
    part = open_part(tmp_path)
    part.suspend()
    assert part.resume()
    part.suspend()
    (tmp_path / "film.mp4.part").write_bytes(b"other")
    assert not part.resume()
    part.close()
