from __future__ import annotations

import ctypes
import errno
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobsvc.storage.filesystem import probe
from jobsvc.storage.filesystem.mounts import file_system, is_local, watch_limit
from jobsvc.storage.filesystem.probe import file_system_info, run_write_probe
from jobsvc.storage.layout import TEMP_PREFIX, is_job_id


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "RENAME_TEST_S", 0.05)
    monkeypatch.setattr(probe, "CLOCK_TEST_S", 0.1)
    monkeypatch.setattr(probe, "CLOCK_READS", 0.2)
    monkeypatch.setattr(probe, "EVENT_TIMEOUT_S", 0.2)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_its_nature_is_that_of_the_mount(tmp_path: Path) -> None:
    nature = file_system_info(tmp_path)
    assert nature.file_system == file_system(tmp_path)
    assert nature.events == is_local(nature.file_system)
    assert nature.watches == watch_limit()
    assert names(tmp_path) == []


@pytest.mark.usefixtures("quickly")
def test_a_local_disk_tells_of_events_steps_its_clock_and_renames_whole(tmp_path: Path) -> None:
    trial = run_write_probe(tmp_path)
    assert trial.event
    assert trial.clock_step is not None
    assert 0 < trial.clock_step < 1
    assert abs(trial.clock_offset) < 1
    assert trial.reads > 0
    assert trial.torn_reads == 0
    assert names(tmp_path) == []


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("step", ["_delivers_events", "_clock", "_renames"])
def test_all_happens_in_one_folder_of_a_reserved_name_that_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Also where it fails in the middle."""
    (tmp_path / "job-1").mkdir()
    seen = []

    def fails(at: Path) -> None:
        seen.extend(names(tmp_path))
        assert tmp_path in at.parents
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(probe, step, fails)
    with pytest.raises(OSError, match="Input/output"):
        run_write_probe(tmp_path)
    scratch, kept = seen
    assert kept == "job-1"
    assert scratch.startswith(TEMP_PREFIX)
    assert not is_job_id(scratch)
    assert names(tmp_path) == ["job-1"]
    assert names(tmp_path / "job-1") == []


def test_where_nothing_may_be_written_nothing_is_tried() -> None:
    with pytest.raises(OSError, match=TEMP_PREFIX):
        run_write_probe(Path("/proc/self"))


@pytest.mark.usefixtures("quickly")
def test_a_farm_that_writes_in_place_would_be_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the looks do see what is torn."""

    def in_place(replacing: Any, number: int) -> None:
        with replacing._path.open("wb") as file:
            for _ in range(16):
                file.write(bytes([number % 256]) * 1024)
                file.flush()

    monkeypatch.setattr(probe._Replacing, "_replace", in_place)
    assert run_write_probe(tmp_path).torn_reads > 0


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize(("fault", "counts"), [(errno.ENOENT, True), (errno.ESTALE, False)])
def test_a_file_that_is_not_there_is_torn_and_one_that_is_to_be_asked_for_again_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, *, counts: bool
) -> None:
    def fails(_path: Path) -> bytes:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(Path, "read_bytes", fails)
    trial = run_write_probe(tmp_path)
    assert trial.torn_reads == (trial.reads if counts else 0)


@pytest.mark.usefixtures("quickly")
def test_a_fault_while_replacing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[Any, int], None] = probe._Replacing._replace

    def fails(replacing: Any, number: int) -> None:
        if number:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(replacing, number)

    monkeypatch.setattr(probe._Replacing, "_replace", fails)
    with pytest.raises(OSError, match="No space left"):
        run_write_probe(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize(("tick", "step"), [(20_000_000, 0.02), (10**18, None)])
def test_the_step_is_the_least_between_two_times_and_none_where_it_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick: int, step: float | None
) -> None:
    def coarse(_descriptor: int) -> Any:
        return SimpleNamespace(st_mtime_ns=time.monotonic_ns() // tick * tick)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", coarse)
        found, _ = probe._clock(tmp_path / "times")
    assert found == step


@pytest.mark.usefixtures("quickly")
def test_a_clock_that_is_ahead_is_told_by_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ahead(_descriptor: int) -> Any:
        return SimpleNamespace(st_mtime_ns=time.time_ns() + 90 * 10**9)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", ahead)
        _, by = probe._clock(tmp_path / "times")
    assert 89 < by < 91


@pytest.mark.parametrize(("init", "add"), [(-1, 0), (None, -1)])
def test_where_no_watch_is_to_be_had_no_event_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: int | None, add: int
) -> None:
    def begin(_flags: int) -> int:
        return os.open(os.devnull, os.O_RDONLY) if init is None else init

    libc = SimpleNamespace(inotify_init1=begin, inotify_add_watch=lambda *_: add)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: libc)
    assert not probe._delivers_events(tmp_path)


def test_an_event_that_does_not_come_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "select", lambda *_: ([], [], []))
    assert not probe._delivers_events(tmp_path)
