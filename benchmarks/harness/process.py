"""CPU time and memory of a process, from /proc (proc(5))."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks.harness.host_info import TICK

REPOSITORY: Final = Path(__file__).parents[2]
EXIT_TIMEOUT_S: Final = 15.0
"""Seconds that a server has to exit."""

_UTIME: Final = 11
_STIME: Final = 12
"""Positions in /proc/PID/stat, counted from the end of the command's name."""
_RESET_PEAK: Final = "5"
"""Written to clear_refs: resets the peak of the memory to the current use."""


def cpu(*pids: int) -> float:
    """Return the CPU seconds of all threads of the processes, to a clock tick."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(") ")[2].split()
        ticks += int(fields[_UTIME]) + int(fields[_STIME])
    return ticks * TICK


def children(pid: int) -> list[int]:
    """Return the running child processes of a process."""
    text = "".join(path.read_text("utf-8") for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for child in text.split()]


def watches(pid: int) -> int:
    """Count the inotify watches of a process's children (proc(5), fdinfo): 0 until they are set up."""
    count = 0
    for child in children(pid):
        for info in Path(f"/proc/{child}/fdinfo").iterdir():
            with suppress(OSError):
                count += info.read_bytes().count(b"inotify wd:")
    return count


class Memory:
    """The resident memory of a process from now on, in bytes."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.initial = self.current()
        Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK, "ascii")

    def current(self) -> int:
        """Return the resident memory."""
        return self._field("VmRSS")

    def peak_growth(self) -> int:
        """Return by how much the peak exceeds the initial memory."""
        return self._field("VmHWM") - self.initial

    def _field(self, name: str) -> int:
        for line in Path(f"/proc/{self._pid}/status").read_text("ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise LookupError(name)


def start(command: Sequence[str], log: Path, core: frozenset[int]) -> subprocess.Popen[bytes]:
    """Start a program on one core, with its standard error in a file; its children inherit both.

    Python imports the modules of this checkout, whatever is installed.
    """
    with on_cores(core), log.open("wb") as errors:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            cwd=REPOSITORY,
        )


@contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Run this thread, and what it starts, on these cores during a block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process, and kill it if it does not exit."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
