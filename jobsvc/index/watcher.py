"""Keeps the watcher's process going: reads its lines, kills it when silent, begins it again when dead.

Nothing that the process does can do more to the service than end its coverage.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Final, Protocol

import structlog

import jobsvc

log = structlog.get_logger("jobsvc.index")

SILENCE: Final = 2.0
"""Seconds without a beat after which a watcher that was ready is given up."""
BEGINNING: Final = 300.0
"""Seconds that setting up the watches may take; a million directories on a cold disk take a while."""
BACKOFF: Final = 0.2
BACKOFF_MOST: Final = 60.0
_CHUNK: Final = 1 << 16
_LAST_WORDS: Final = 300


class Listener(Protocol):
    """Whom the watcher tells."""

    def on_ready(self) -> None:
        """All watches are in force."""

    def on_hints(self, job_ids: list[str]) -> None:
        """Something changed in these directories."""

    def on_beat(self, moment: float) -> None:
        """Every event before `moment` (monotonic seconds) has been handed over."""

    def on_lost(self) -> None:
        """Expect nothing more: the process is gone."""


class Watcher:
    """The watcher's process, again and again, for as long as `run` runs."""

    def __init__(self, root: Path, listener: Listener) -> None:
        self._root = root
        self._listener = listener
        self._process: Process | None = None
        self.starts = 0
        """How many times the process was begun."""

    @property
    def pid(self) -> int | None:
        """The process's id while there is one."""
        return None if self._process is None else self._process.pid

    def restart(self) -> None:
        """Give up the present process, if there is one; another follows."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def run(self) -> None:
        """Watch until cancelled."""
        pause = BACKOFF
        while True:
            ready = await self._once()
            pause = BACKOFF if ready else min(pause * 2, BACKOFF_MOST)
            await asyncio.sleep(pause)

    async def _once(self) -> bool:
        """Run one process to its end; returns whether it ever was ready."""
        ready = False
        self.starts += 1
        try:
            self._process = await _begin(self._root)
            ready = await self._listen(self._process)
        except (OSError, TimeoutError) as failed:
            log.warning("watcher-failed", reason=str(failed) or type(failed).__name__)
        finally:
            self._listener.on_lost()
            if self._process is not None:
                await asyncio.shield(_end(self._process))
                self._process = None
        return ready

    async def _listen(self, process: Process) -> bool:
        ready, rest = False, b""
        assert process.stdout is not None  # noqa: S101 - asked for by _begin
        while True:
            async with asyncio.timeout(SILENCE if ready else BEGINNING):
                data = await process.stdout.read(_CHUNK)
            if not data:
                return ready
            *lines, rest = (rest + data).split(b"\n")
            ready = self._tell(lines) or ready

    def _tell(self, lines: list[bytes]) -> bool:
        """Pass on whole lines in their order; returns whether `ready` was among them."""
        ready = False
        hints: list[str] = []
        for line in lines:
            word, _, rest = line.decode("ascii", "replace").partition(" ")
            if word == "job":
                hints.append(rest)
                continue
            self._hand_over(hints)
            if word == "beat":
                self._listener.on_beat(float(rest))
            elif word == "ready":
                ready = True
                self._listener.on_ready()
        self._hand_over(hints)
        return ready

    def _hand_over(self, hints: list[str]) -> None:
        if hints:
            self._listener.on_hints(list(hints))
            hints.clear()


async def _begin(root: Path) -> Process:
    # The process must find this very package, wherever it was imported from.
    here = str(Path(jobsvc.__file__).parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jobsvc.index.hints", str(root),
        stdin=PIPE, stdout=PIPE, stderr=DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip


async def _end(process: Process) -> None:
    """Kill, and wait for the end, but not for ever: a process that hangs in the kernel dies when it can."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            await process.wait()
