"""Storage that hangs, fails and dies on demand: tests.slow_storage.file_system, mounted for a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from tests.eventually import wait_until
from tests.slow_storage.fault_modes import Fault

PROJECT: Final = Path(__file__).parents[2]
FOREVER_S: Final = 3600.0
"""Seconds: until the trouble is over."""
_UNMOUNT: Final = ("fusermount3", "-u", "-q", "-z")


def missing_requirement() -> str | None:
    """Name what is not here of what FUSE needs; None where all is."""
    if shutil.which("fusermount3") is None:
        return "fusermount3"
    if find_library("fuse3") is None:
        return "libfuse3"
    return None if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse"


@dataclass(slots=True)
class FaultyStorage:
    """A folder that is written to straight, as by another host, and where it is seen through the mount."""

    folder: Path
    mountpoint: Path
    kernel_cache_s: float
    _faults_file: Path
    _stderr_file: Path
    process: subprocess.Popen[bytes] = field(init=False)
    _faults: dict[str, Fault] = field(default_factory=dict)

    def mount(self) -> None:
        """Mount it, for the first time or again; ChildProcessError where this is not allowed here."""
        with self._stderr_file.open("wb") as errors:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.slow_storage.file_system"),
                    *(self.folder, self.mountpoint, self._faults_file, f"{self.kernel_cache_s:g}"),
                ],
                cwd=PROJECT,
                env={**os.environ, "FUSE_LIBRARY_NAME": "fuse3"},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        wait_until(lambda: _is_mounted(self.mountpoint) or self.process.poll() is not None, 20)
        if self.process.poll() is not None:
            raise ChildProcessError(self._stderr_file.read_text())

    def unmount(self) -> None:
        """Take it away; what it was mounted on is an empty folder."""
        _end(self.process)
        # It did so itself, unless it was killed.
        subprocess.run([*_UNMOUNT, self.mountpoint], check=False)

    def add_fault(self, path: str, *calls: str, **options: Any) -> None:
        """Have calls go wrong from now on; one trouble a path."""
        self._faults[path] = Fault(path, calls, **options)
        self._write_faults()

    def clear_faults(self) -> None:
        """Have everything go well again; what was held up goes on."""
        self._faults.clear()
        self._write_faults()

    def kill(self) -> None:
        """Kill the program: whatever is asked of the mount from now on has ENOTCONN for an answer."""
        self.process.kill()
        self.process.wait()

    def _write_faults(self) -> None:
        temporary = self._faults_file.with_suffix(".new")
        temporary.write_bytes(orjson.dumps({name: asdict(one) for name, one in self._faults.items()}))
        temporary.rename(self._faults_file)


@contextmanager
def mounted_storage(scratch: Path, *, kernel_cache_s: float = 0) -> Iterator[FaultyStorage]:
    """Mount a new, empty storage; ChildProcessError where this is not allowed here.

    `remembered`: seconds for which the kernel need not ask for names and sizes again, as of network storage.
    """
    folder, mount, faults = (scratch / name for name in ("folder", "mount", "troubles"))
    folder.mkdir()
    mount.mkdir()
    faults.write_bytes(b"{}")
    storage = FaultyStorage(folder, mount, kernel_cache_s, faults, scratch / "said-by-storage")
    try:
        storage.mount()
        yield storage
    finally:
        storage.clear_faults()
        storage.unmount()


def _is_mounted(mount: Path) -> bool:
    """Ask the kernel's table: a look at the place itself may hang."""
    return any(
        line.split(" ")[4] == str(mount) for line in Path("/proc/self/mountinfo").read_text().splitlines()
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
