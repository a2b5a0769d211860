from __future__ import annotations

import ctypes
import errno
import os
import select
import threading
import time
from collections.abc import Callable
from itertools import count
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
    monkeypatch.setattr(probe, "EVENT_TIMEOUT_S", 20.0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_system_type_is_that_of_the_mount(tmp_path: Path) -> None:
    nature = file_system_info(tmp_path)
    assert nature.file_system == file_system(tmp_path)
    assert nature.events == is_local(nature.file_system)
    assert nature.watches == watch_limit()
    assert names(tmp_path) == []


@pytest.mark.usefixtures("quickly")
def test_local_disk_has_events_a_clock_step_and_atomic_renames(tmp_path: Path) -> None:
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
def test_probe_uses_one_directory_with_a_reserved_name_and_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Also if the probe fails in the middle."""
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


def test_nothing_is_probed_without_write_permission() -> None:
    with pytest.raises(OSError, match=TEMP_PREFIX):
        run_write_probe(Path("/proc/self"))


@pytest.mark.usefixtures("quickly")
def test_writes_in_place_are_detected_as_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe does notice torn files."""
    monkeypatch.setattr(probe, "RENAME_TEST_S", 2.0)  # on a busy machine one of its threads may run late

    def in_place(replacing: Any, number: int) -> None:
        with replacing._path.open("wb") as file:
            for _ in range(16):
                file.write(bytes([number % 256]) * 1024)
                file.flush()

    monkeypatch.setattr(probe._Replacing, "_replace", in_place)
    assert run_write_probe(tmp_path).torn_reads > 0


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize(("fault", "counts"), [(errno.ENOENT, True), (errno.ESTALE, False)])
def test_missing_file_is_torn_and_a_stale_handle_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, *, counts: bool
) -> None:
    def fails(_path: Path) -> bytes:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(Path, "read_bytes", fails)
    trial = run_write_probe(tmp_path)
    assert trial.torn_reads == (trial.reads if counts else 0)


@pytest.mark.usefixtures("quickly")
def test_error_while_replacing_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[Any, int], None] = probe._Replacing._replace
    failing = threading.Event()

    def read_meanwhile(_path: Path) -> bytes:
        assert failing.wait(20)
        return b""

    def fails(replacing: Any, number: int) -> None:
        if number:
            failing.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        real(replacing, number)

    monkeypatch.setattr(probe._Replacing, "_replace", fails)
    monkeypatch.setattr(Path, "read_bytes", read_meanwhile)
    with pytest.raises(OSError, match="No space left"):
        run_write_probe(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize(("tick", "step"), [(20_000_000, 0.02), (10**18, None)])
def test_clock_step_is_the_smallest_difference_and_none_if_time_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick: int, step: float | None
) -> None:
    monkeypatch.setattr(probe, "FIRST_STEP_TIMEOUT_S", 20.0 if step else 0.2)
    calls = count()

    def coarse(_descriptor: int) -> Any:
        """A clock that is 5 ms later at each call, in steps of `tick` ns."""
        return SimpleNamespace(st_mtime_ns=next(calls) * 5_000_000 // tick * tick)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", coarse)
        found, _ = probe._clock(tmp_path / "times")
    assert found == step


@pytest.mark.usefixtures("quickly")
def test_clock_that_is_ahead_is_reported_with_its_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ahead(_descriptor: int) -> Any:
        return SimpleNamespace(st_mtime_ns=time.time_ns() + 90 * 10**9)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", ahead)
        _, by = probe._clock(tmp_path / "times")
    assert 89 < by < 91


@pytest.mark.parametrize(("init", "add"), [(-1, 0), (None, -1)])
def test_no_events_without_a_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: int | None, add: int
) -> None:
    def begin(_flags: int) -> int:
        return os.open(os.devnull, os.O_RDONLY) if init is None else init

    libc = SimpleNamespace(inotify_init1=begin, inotify_add_watch=lambda *_: add)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: libc)
    assert not probe._delivers_events(tmp_path)


def test_missing_event_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "select", lambda *_: ([], [], []))
    assert not probe._delivers_events(tmp_path)
