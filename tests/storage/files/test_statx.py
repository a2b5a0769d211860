from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jobsvc.storage.files import statx
from jobsvc.storage.files.statx import birth_time


def test_birth_time_does_not_change_with_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        output = subprocess.run(
            ["stat", "-c", "%.W", folder], capture_output=True, text=True, check=True
        ).stdout
        seconds, _, fraction = output.strip().partition(".")
        if seconds in {"0", "-"}:
            pytest.skip("this file system has no birth times")
        expected = int(seconds) * 1_000_000 + int(fraction[:6])
        assert birth_time(fd) == expected
        (folder / "new").write_bytes(b"")
        os.utime(folder, (1, 1))
        assert birth_time(fd) == expected
    finally:
        os.close(fd)


def test_file_system_without_birth_times_gives_none() -> None:
    fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        assert birth_time(fd) is None
    finally:
        os.close(fd)


def test_failed_call_and_old_library_give_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert birth_time(1 << 30) is None
    monkeypatch.setattr(statx, "_statx", None)
    assert birth_time(0) is None
