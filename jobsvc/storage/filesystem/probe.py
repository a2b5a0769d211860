"""What the storage beneath a root can do: known by its kind, or tried out in a folder of its own.

`try_out` writes in that folder alone, which has the reserved prefix and so is no job's, and takes it away
again. Nothing else here writes anything. Only what this machine sees can be tried: not what another does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

from jobsvc.storage.filesystem.mounts import file_system, is_local, watch_limit
from jobsvc.storage.layout import STATUS_FILE, TEMP_PREFIX

RENAME_TEST_S: Final = 0.5
"""Seconds for which a file is replaced and looked at."""
CLOCK_TEST_S: Final = 0.5
"""Seconds for which a file is written to see the steps of its times."""
CLOCK_READS: Final = 4.5
"""Seconds after which a clock that did not step is given up; FAT's steps are of 2 s."""
EVENT_TIMEOUT_S: Final = 1.0
"""Seconds within which an event must come."""
_STEPS: Final = 32
_SIZE: Final = 16_384
_IN_MOVED_TO: Final = 0x80


@dataclass(frozen=True, slots=True)
class FileSystemInfo:
    """What is known of the storage without touching it."""

    file_system: str
    """Its type, "ext4"; or "unknown"."""
    events: bool
    """Whether the kernel tells of every change: only this machine can make one."""
    watches: int
    """How many directories one user may watch."""


@dataclass(frozen=True, slots=True)
class WriteProbe:
    """What was found out by writing."""

    event: bool
    """Whether a change made here was told."""
    clock_step: float | None
    """Seconds between two times of files that differ, at the least; None where none did."""
    clock_offset: float
    """Seconds by which the clock of the storage is ahead of ours."""
    reads: int
    """How often a file was looked at while it was replaced by renaming."""
    torn_reads: int
    """How often it was not there then, or neither the old one nor the new one whole."""


def file_system_info(root: Path) -> FileSystemInfo:
    """Say what kind of storage it is."""
    kind = file_system(root)
    return FileSystemInfo(kind, is_local(kind), watch_limit())


def run_write_probe(root: Path) -> WriteProbe:
    """Write, in a folder of our own beneath the root; OSError where that may not be, or fails."""
    with _scratch(root) as folder:
        event = _delivers_events(folder)
        step, ahead = _clock(folder / "times")
        looks, torn = _renames(folder / STATUS_FILE)
    return WriteProbe(event, step, ahead, looks, torn)


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    folder = root / f"{TEMP_PREFIX}probe-{token_hex(4)}"
    try:
        folder.mkdir(mode=0o700)  # in here, for a signal may end us at any moment
        yield folder
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _delivers_events(folder: Path) -> bool:
    """Say whether inotify(7) tells of a rename in the folder."""
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if events < 0:
        return False
    with closing(os.fdopen(events, "rb", buffering=0)):
        if libc.inotify_add_watch(events, os.fsencode(folder), _IN_MOVED_TO) < 0:
            return False
        (folder / "beside").touch()
        (folder / "beside").rename(folder / "renamed")
        return bool(select.select([events], [], [], EVENT_TIMEOUT_S)[0])


def _clock(path: Path) -> tuple[float | None, float]:
    """Write again and again; give the least step of the file's time, and how far that is ahead of ours."""
    with path.open("wb", buffering=0) as file:
        file.write(b"x")
        last = os.fstat(file.fileno()).st_mtime_ns
        ahead = (last - time.time_ns()) / 1e9
        steps: list[int] = []
        begun = time.monotonic()
        while len(steps) < _STEPS and time.monotonic() - begun < (CLOCK_TEST_S if steps else CLOCK_READS):
            file.write(b"x")
            now = os.fstat(file.fileno()).st_mtime_ns
            if now != last:
                steps.append(abs(now - last))
            last = now
    return (min(steps) / 1e9 if steps else None), ahead


def _renames(path: Path) -> tuple[int, int]:
    """Replace a file by renaming, and look at it; give the looks, and those that saw no whole file."""
    replacing = _Replacing(path)
    looks = torn = 0
    with replacing:
        ends = time.monotonic() + RENAME_TEST_S
        while time.monotonic() < ends:
            looks += 1
            try:
                data = path.read_bytes()
            except OSError as fault:
                torn += fault.errno != errno.ESTALE  # that is what NFS says of one replaced, and asks again
            else:
                torn += len(data) != _SIZE or data != data[:1] * _SIZE
    return looks, torn


class _Replacing:
    """Replaces a file for the length of a block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._fault: OSError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._replace(0)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                number += 1
                self._replace(number)
        except OSError as fault:
            self._fault = fault

    def _replace(self, number: int) -> None:
        beside = self._path.with_name(f"{TEMP_PREFIX}beside")
        beside.write_bytes(bytes([number % 256]) * _SIZE)
        beside.rename(self._path)
