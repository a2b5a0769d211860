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
from tests.slow_storage.fault_modes import Trouble

PROJECT: Final = Path(__file__).parents[2]
FOR_EVER: Final = 3600.0
"""Seconds: until the trouble is over."""
_UNMOUNT: Final = ("fusermount3", "-u", "-q", "-z")


def missing() -> str | None:
    """Name what is not here of what FUSE needs; None where all is."""
    if shutil.which("fusermount3") is None:
        return "fusermount3"
    if find_library("fuse3") is None:
        return "libfuse3"
    return None if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse"


@dataclass(slots=True)
class Storage:
    """A folder that is written to straight, as by another host, and where it is seen through the mount."""

    folder: Path
    mount: Path
    remembered: float
    _file: Path
    _said: Path
    process: subprocess.Popen[bytes] = field(init=False)
    _troubles: dict[str, Trouble] = field(default_factory=dict)

    def mount_it(self) -> None:
        """Mount it, for the first time or again; ChildProcessError where this is not allowed here."""
        with self._said.open("wb") as errors:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.slow_storage.file_system"),
                    *(self.folder, self.mount, self._file, f"{self.remembered:g}"),
                ],
                cwd=PROJECT,
                env={**os.environ, "FUSE_LIBRARY_NAME": "fuse3"},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        wait_until(lambda: _is_mounted(self.mount) or self.process.poll() is not None, 20)
        if self.process.poll() is not None:
            raise ChildProcessError(self._said.read_text())

    def unmount(self) -> None:
        """Take it away; what it was mounted on is an empty folder."""
        _end(self.process)
        # It did so itself, unless it was killed.
        subprocess.run([*_UNMOUNT, self.mount], check=False)

    def trouble(self, path: str, *calls: str, **more: Any) -> None:
        """Have calls go wrong from now on; one trouble a path."""
        self._troubles[path] = Trouble(path, calls, **more)
        self._tell()

    def heal(self) -> None:
        """Have everything go well again; what was held up goes on."""
        self._troubles.clear()
        self._tell()

    def die(self) -> None:
        """Kill the program: whatever is asked of the mount from now on has ENOTCONN for an answer."""
        self.process.kill()
        self.process.wait()

    def _tell(self) -> None:
        beside = self._file.with_suffix(".new")
        beside.write_bytes(orjson.dumps({name: asdict(one) for name, one in self._troubles.items()}))
        beside.rename(self._file)


@contextmanager
def mounted(scratch: Path, *, remembered: float = 0) -> Iterator[Storage]:
    """Mount a new, empty storage; ChildProcessError where this is not allowed here.

    `remembered`: seconds for which the kernel need not ask for names and sizes again, as of network storage.
    """
    folder, mount, troubles = (scratch / name for name in ("folder", "mount", "troubles"))
    folder.mkdir()
    mount.mkdir()
    troubles.write_bytes(b"{}")
    storage = Storage(folder, mount, remembered, troubles, scratch / "said-by-storage")
    try:
        storage.mount_it()
        yield storage
    finally:
        storage.heal()
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
