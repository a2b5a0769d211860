"""Report what the storage of a root can do: from its file system type, or by a test that writes to it.

`run_write_probe` writes only in a directory that it creates below the root and removes again; its name has
the reserved prefix, so it is no job directory. Nothing else here writes. What other machines see cannot be
tested.
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
"""Seconds for which a file is replaced and read."""
CLOCK_TEST_S: Final = 0.5
"""Seconds for which a file is written to measure its timestamp step."""
FIRST_STEP_TIMEOUT_S: Final = 4.5
"""Seconds to wait for the first timestamp step; FAT has steps of 2 s."""
EVENT_TIMEOUT_S: Final = 1.0
"""Seconds within which an event must arrive."""
_STEPS: Final = 32
_SIZE: Final = 16_384
_IN_MOVED_TO: Final = 0x80


@dataclass(frozen=True, slots=True)
class FileSystemInfo:
    """What is known of the storage without writing to it."""

    file_system: str
    """Type of the file system, such as "ext4", or "unknown"."""
    events: bool
    """Whether inotify reports every change: only this machine can make changes."""
    watches: int
    """Number of directories that one user may watch."""


@dataclass(frozen=True, slots=True)
class WriteProbe:
    """The results of the write test."""

    event: bool
    """Whether inotify reported a change made on this machine."""
    clock_step: float | None
    """Smallest difference between two timestamps, in seconds; None if the timestamp did not change."""
    clock_offset: float
    """Seconds by which the storage's clock is ahead of this machine's."""
    reads: int
    """Number of reads of a file while it was replaced by rename."""
    torn_reads: int
    """Number of these reads that failed, or returned neither the complete old nor the complete new file."""


def file_system_info(root: Path) -> FileSystemInfo:
    """Return what is known of the root's storage without writing to it."""
    kind = file_system(root)
    return FileSystemInfo(kind, is_local(kind), watch_limit())


def run_write_probe(root: Path) -> WriteProbe:
    """Test the storage by writing to a temporary directory in the root; raises OSError if that fails."""
    with _scratch(root) as folder:
        event = _delivers_events(folder)
        step, ahead = _clock(folder / "times")
        reads, torn = _renames(folder / STATUS_FILE)
    return WriteProbe(event, step, ahead, reads, torn)


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    folder = root / f"{TEMP_PREFIX}probe-{token_hex(4)}"
    try:
        folder.mkdir(mode=0o700)  # inside `try`: a signal may interrupt at any moment
        yield folder
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _delivers_events(folder: Path) -> bool:
    """Return whether inotify(7) reports a rename in the directory."""
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if events < 0:
        return False
    with closing(os.fdopen(events, "rb", buffering=0)):
        if libc.inotify_add_watch(events, os.fsencode(folder), _IN_MOVED_TO) < 0:
            return False
        (folder / "first-name").touch()
        (folder / "first-name").rename(folder / "second-name")
        return bool(select.select([events], [], [], EVENT_TIMEOUT_S)[0])


def _clock(path: Path) -> tuple[float | None, float]:
    """Write repeatedly; return the smallest mtime step (None: no step) and the clock offset, in seconds."""
    with path.open("wb", buffering=0) as file:
        file.write(b"x")
        last = os.fstat(file.fileno()).st_mtime_ns
        ahead = (last - time.time_ns()) / 1e9
        steps: list[int] = []
        started_at = time.monotonic()
        while len(steps) < _STEPS:
            if time.monotonic() - started_at > (CLOCK_TEST_S if steps else FIRST_STEP_TIMEOUT_S):
                break
            file.write(b"x")
            now = os.fstat(file.fileno()).st_mtime_ns
            if now != last:
                steps.append(abs(now - last))
            last = now
    return (min(steps) / 1e9 if steps else None), ahead


def _renames(path: Path) -> tuple[int, int]:
    """Read a file while it is replaced by rename; return the number of reads and of torn reads."""
    replacing = _Replacing(path)
    reads = torn = 0
    with replacing:
        ends = time.monotonic() + RENAME_TEST_S
        while time.monotonic() < ends:
            reads += 1
            try:
                data = path.read_bytes()
            except OSError as fault:
                torn += fault.errno != errno.ESTALE  # NFS: the file was replaced; the service retries
            else:
                torn += len(data) != _SIZE or data != data[:1] * _SIZE
    return reads, torn


class _Replacing:
    """Replace a file by rename in a thread, again and again, for the length of a `with` block.

    Raises the thread's OSError at the end of the block.
    """

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
        temp = self._path.with_name(f"{TEMP_PREFIX}next")
        temp.write_bytes(bytes([number % 256]) * _SIZE)
        temp.rename(self._path)
