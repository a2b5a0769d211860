"""The watcher's own process, `python -m jobsvc.index.hints ROOT`: prints a job's id for each change.

A line is `ready` (all watches are in force), `job ID`, or `beat T`: every event before T (CLOCK_MONOTONIC,
seconds) has been printed. The proof is in band: a nameless file of our own is watched along with the jobs,
and its event comes out of the queue behind those before it. Ends when standard input or its parent does.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from time import monotonic
from typing import Final, Literal, TextIO

from watchfiles._rust_notify import RustNotify  # the public watch() adds a filter of its own and retries

DEBOUNCE_MS: Final = 50
STEP_MS: Final = 10
PULSE: Final = 0.2
"""Seconds between two beats."""
_PR_SET_PDEATHSIG: Final = 1


class Pulse:
    """The marker file: touched once a beat, and not again before its event came out."""

    def __init__(self) -> None:
        self._fd, self.path = tempfile.mkstemp(prefix=".jobsvc-pulse-")
        self._touched: float | None = None
        self._next = 0.0

    def unlink(self) -> None:
        """Take the name away, now that the watch is on the file; that is the first touch.

        Nothing stays behind, however we end.
        """
        self._touched = monotonic()
        Path(self.path).unlink()

    def is_set(self) -> bool:
        """Touch when it is time; RustNotify asks this each step, and stops when standard input has ended."""
        now = monotonic()
        if self._touched is None and now >= self._next:
            self._touched, self._next = now, now + PULSE
            os.utime(self._fd)
        return bool(select.select([0], [], [], 0)[0])

    def seen(self) -> float | None:
        """Return when the touch whose event has come out was made."""
        touched, self._touched = self._touched, None
        return touched


def changed_jobs(root: str, paths: Iterable[str]) -> list[str]:
    """Name the directories beneath `root` that the paths lie in, each once, in order."""
    start = len(root.rstrip("/")) + 1
    names = (path[start:].partition("/")[0] for path in paths if path.startswith(root))
    return sorted({name for name in names if name})


def main(root: str, out: TextIO) -> None:
    """Watch until standard input ends; an error of the watcher ends the process."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    root = os.path.realpath(root)
    pulse = Pulse()
    try:
        watcher = RustNotify([root, pulse.path], False, False, 0, True, False)  # noqa: FBT003 - positional only
    finally:
        pulse.unlink()
    _say(out, "ready\n")
    while True:
        # No timeout: where it ran out, RustNotify would drop what came at that moment.
        changes: set[tuple[int, str]] | Literal["signal", "stop", "timeout"]
        changes = watcher.watch(DEBOUNCE_MS, STEP_MS, 0, pulse)
        if isinstance(changes, str):
            return
        paths = {path for _, path in changes}
        lines = "".join(f"job {name}\n" for name in changed_jobs(root, paths))
        if pulse.path in paths and (moment := pulse.seen()) is not None:
            lines += f"beat {moment!r}\n"
        _say(out, lines)


def _say(out: TextIO, lines: str) -> None:
    if lines:
        out.write(lines)
        out.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.stdout)
    except BrokenPipeError:
        os._exit(0)
