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
"""Until the fault is removed."""
_UNMOUNT: Final = ("fusermount3", "-u", "-q", "-z")


def missing_requirement() -> str | None:
    """Return the missing requirement of FUSE, None if all are present."""
    if shutil.which("fusermount3") is None:
        return "fusermount3"
    if find_library("fuse3") is None:
        return "libfuse3"
    return None if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse"


@dataclass(slots=True)
class FaultyStorage:
    """A folder that is written to directly, as by another host, and its mount."""

    folder: Path
    mountpoint: Path
    kernel_cache_s: float
    _faults_file: Path
    _stderr_file: Path
    process: subprocess.Popen[bytes] = field(init=False)
    _faults: dict[str, Fault] = field(default_factory=dict)
    _written: int = 0
    """How often the file of faults was written."""

    def mount(self) -> None:
        """Mount it, for the first time or again; ChildProcessError if that is not allowed here."""
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
        """Unmount it; the mount point is an empty folder afterwards."""
        _end(self.process)
        # It unmounts itself, unless it was killed.
        subprocess.run([*_UNMOUNT, self.mountpoint], check=False)

    def add_fault(self, path: str, *calls: str, **options: Any) -> None:
        """Make calls fail from now on; one fault per path."""
        self._faults[path] = Fault(path, calls, **options)
        self._write_faults()

    def clear_faults(self) -> None:
        """Remove all faults; delayed calls continue."""
        self._faults.clear()
        self._write_faults()

    def kill(self) -> None:
        """Kill the program: every call on the mount then fails with ENOTCONN."""
        self.process.kill()
        self.process.wait()

    def _write_faults(self) -> None:
        temporary = self._faults_file.with_suffix(".new")
        temporary.write_bytes(orjson.dumps({name: asdict(one) for name, one in self._faults.items()}))
        # Files that are written within one tick of the clock have the same mtime, and often the same inode.
        self._written += 1
        os.utime(temporary, (self._written, self._written))
        temporary.rename(self._faults_file)


@contextmanager
def mounted_storage(scratch: Path, *, kernel_cache_s: float = 0) -> Iterator[FaultyStorage]:
    """Mount a new, empty storage; ChildProcessError if that is not allowed here.

    `kernel_cache_s`: seconds for which the kernel caches names and sizes, as for network storage.
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
    """Read the kernel's mount table: a system call on the path itself may hang."""
    return any(
        line.split(" ")[4] == str(mount) for line in Path("/proc/self/mountinfo").read_text().splitlines()
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
