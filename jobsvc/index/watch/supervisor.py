"""Keeps the watcher's process going: reads its lines, kills it when silent, begins it again when dead.

Nothing that the process does can do more to the service than end its coverage.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import Process
from enum import Enum
from pathlib import Path
from time import monotonic
from typing import Final, Protocol, TypeAlias

import orjson
import structlog

from jobsvc.index.processes import spawn

WatchEvent: TypeAlias = tuple["EventKind", str]
"""What happened, and the id of the job; of MOVED the id, a slash and the name that moved."""

log = structlog.get_logger("jobsvc.index")

SILENCE_TIMEOUT_S: Final = 3.0
"""Seconds without a line after which the process is given up; merging 16,384 watches takes 0.25."""
START_TIMEOUT_S: Final = 30.0
"""Seconds that the process has for its first line; on a cold disk the interpreter alone takes some."""
HEALTHY_AFTER_S: Final = 10.0
"""A process that lasted so many seconds is begun again at once."""
HEARTBEAT_INTERVAL_S: Final = 0.2
"""Seconds between two beats."""
BACKOFF_S: Final = 0.2
MAX_BACKOFF_S: Final = 60.0
MAX_GROUP_SIZE: Final = 16_384
"""The most directories that one of its lookouts takes on by merging."""
_CHUNK: Final = 1 << 16


class EventKind(Enum):
    """What a hint is about."""

    CHANGED = "job"
    GROWN = "log"
    MOVED = "moved"
    NEW = "new"
    GONE = "gone"
    UNWATCHED = "drop"
    UNWATCHABLE = "blind"


EVENT_KINDS: Final = {happened.value: happened for happened in EventKind}


class WatcherCallbacks(Protocol):
    """Whom the watcher tells, in the order in which things happened."""

    def on_ready(self) -> None:
        """Hear that the root is watched from now on."""

    def on_watched(self, number: int) -> None:
        """Hear that the directories of the `number`th array (from 1) are watched from now on."""

    def on_limit_reached(self, number: int) -> None:
        """Hear that they are not, since the system allows no more watches."""

    def on_events(self, hints: list[WatchEvent]) -> None:
        """Hear that something happened in these directories."""

    def on_heartbeat(self, moment: float) -> None:
        """Hear that every event before `moment` (monotonic seconds) has been handed over."""

    def on_unknown_line(self) -> None:
        """Count a line that is not part of the protocol."""

    def on_lost(self) -> None:
        """Hear that the process is gone: changes from now on are not told."""


class WatcherSupervisor:
    """The watcher's process, again and again, for as long as `run` runs."""

    def __init__(
        self,
        root: Path,
        listener: WatcherCallbacks,
        *,
        pulse: float = HEARTBEAT_INTERVAL_S,
        chunk: int = MAX_GROUP_SIZE,
    ) -> None:
        self._arguments = (str(root), str(pulse), str(chunk))
        self._listener = listener
        self._process: Process | None = None
        self.starts = 0
        """How many times the process was begun."""

    @property
    def pid(self) -> int | None:
        """The process's id while there is one."""
        return None if self._process is None else self._process.pid

    def watch(self, folders: list[str]) -> None:
        """Have these directories watched, relative to the root; `on_armed` follows, or `on_refused`."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(orjson.dumps(folders) + b"\n")

    def restart(self) -> None:
        """Give up the present process, if there is one; another follows."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def run(self) -> None:
        """Watch until cancelled."""
        pause = BACKOFF_S
        while True:
            begun = monotonic()
            await self._once()
            pause = BACKOFF_S if monotonic() - begun > HEALTHY_AFTER_S else min(pause * 2, MAX_BACKOFF_S)
            await asyncio.sleep(pause)

    async def _once(self) -> None:
        """Run one process to its end."""
        self.starts += 1
        why = words = ""
        try:
            self._process = await spawn.spawn("jobsvc.index.watch.process_main", *self._arguments)
            await self._listen(self._process)
        except (OSError, TimeoutError) as failed:
            why = str(failed) or type(failed).__name__
        finally:
            self._listener.on_lost()
            if self._process is not None:
                words = await asyncio.shield(spawn.kill(self._process))
                self._process = None
        log.warning("watcher-lost", reason=why or words)

    async def _listen(self, process: Process) -> None:
        """Hear it to its end; TimeoutError when it is silent."""
        rest, patience = b"", START_TIMEOUT_S
        assert process.stdout is not None  # noqa: S101 - asked for by child.begin
        while True:
            async with asyncio.timeout(patience):
                data = await process.stdout.read(_CHUNK)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            self._handle_lines(lines)
            patience = SILENCE_TIMEOUT_S

    def _handle_lines(self, lines: list[bytes]) -> None:
        """Pass on whole lines in their order; a line that makes no sense is counted and skipped."""
        hints: list[WatchEvent] = []
        for line in lines:
            word, _, rest = line.decode("utf-8", "replace").partition(" ")
            if word in EVENT_KINDS:
                hints.append((EVENT_KINDS[word], rest))
                continue
            if hints:
                self._listener.on_events(hints)
                hints = []
            try:
                self._handle_line(word, rest)
            except ValueError:
                self._listener.on_unknown_line()
        if hints:
            self._listener.on_events(hints)

    def _handle_line(self, word: str, rest: str) -> None:
        """Pass on one line; ValueError where it is not part of the protocol."""
        if word == "beat":
            moment = float(rest)
            if not moment <= monotonic():  # in the future, or not a number
                raise ValueError(rest)
            self._listener.on_heartbeat(moment)
        elif word == "armed":
            self._listener.on_watched(int(rest))
        elif word == "refused":
            self._listener.on_limit_reached(int(rest))
        elif word == "ready" and not rest:
            self._listener.on_ready()
        else:
            raise ValueError(word)
