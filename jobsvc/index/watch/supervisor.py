"""Run the watcher process: read its lines, kill it when it is silent, restart it when it has exited.

A failure of the process only ends the watch coverage; it has no other effect on the service.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import Process
from pathlib import Path
from time import monotonic
from typing import Final

import orjson
import structlog

from jobsvc.index.processes import spawn
from jobsvc.index.watch.watch_events import EVENT_KINDS, WatchEvent, WatchEvents

log = structlog.get_logger("jobsvc.index")

SILENCE_TIMEOUT_S: Final = 3.0
"""Seconds without a line after which the process is killed; merging 16,384 watches takes 0.25 s."""
START_TIMEOUT_S: Final = 30.0
"""Seconds until the first line; on a cold disk, starting the interpreter alone takes several."""
HEALTHY_AFTER_S: Final = 10.0
"""A process that ran for more than this many seconds is restarted after BACKOFF_S, without more backoff."""
HEARTBEAT_INTERVAL_S: Final = 0.2
"""Seconds between two heartbeats."""
BACKOFF_S: Final = 0.2
MAX_BACKOFF_S: Final = 60.0
MAX_GROUP_SIZE: Final = 16_384
"""Maximum directories of a merged inotify group: setting it up holds the GIL, 12 µs per directory."""
_READ_BYTES: Final = 1 << 16


class WatcherSupervisor:
    """Keep a watcher process running while `run` runs."""

    def __init__(self, root: Path, *, heartbeat_interval: float, max_group_size: int) -> None:
        self._arguments = (str(root), str(heartbeat_interval), str(max_group_size))
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None if no process is running."""
        return None if self._process is None else self._process.pid

    def watch(self, folders: list[str]) -> None:
        """Send one array of directories, relative to the root, to the process.

        `on_watched` or `on_limit_reached` is called later. Does nothing if no process is running.
        """
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(orjson.dumps(folders) + b"\n")

    def restart(self) -> None:
        """Kill the current process, if there is one; `run` starts another."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def run(self, watch_events: WatchEvents) -> None:
        """Run watcher processes until cancelled."""
        pause = BACKOFF_S
        while True:
            started_at = monotonic()
            await self._run_once(watch_events)
            pause = BACKOFF_S if monotonic() - started_at > HEALTHY_AFTER_S else min(pause * 2, MAX_BACKOFF_S)
            await asyncio.sleep(pause)

    async def _run_once(self, watch_events: WatchEvents) -> None:
        """Run one process until it exits."""
        reason = stderr = ""
        try:
            self._process = await spawn.spawn("jobsvc.index.watch.watcher_process", *self._arguments)
            await _read_lines(self._process, watch_events)
        except (OSError, TimeoutError) as exc:
            reason = str(exc) or type(exc).__name__
        finally:
            watch_events.on_lost()
            if self._process is not None:
                stderr = await spawn.kill(self._process)
                self._process = None
        log.warning("watcher-lost", reason=reason or stderr or "the process ended")


async def _read_lines(process: Process, watch_events: WatchEvents) -> None:
    """Read the process's lines until it exits; raises TimeoutError if it is silent."""
    rest, timeout = b"", START_TIMEOUT_S
    assert process.stdout is not None  # noqa: S101 - spawn() opens a pipe
    while True:
        async with asyncio.timeout(timeout):
            data = await process.stdout.read(_READ_BYTES)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        handle_lines(lines, watch_events)
        timeout = SILENCE_TIMEOUT_S


def handle_lines(lines: list[bytes], watch_events: WatchEvents) -> None:
    """Report complete lines, in order; an invalid line is counted and skipped."""
    events: list[WatchEvent] = []
    for line in lines:
        word, _, rest = line.decode("utf-8", "replace").partition(" ")
        if word in EVENT_KINDS:
            events.append((EVENT_KINDS[word], rest))
            continue
        if events:
            watch_events.on_events(events)
            events = []
        try:
            _handle_line(word, rest, watch_events)
        except ValueError:
            watch_events.on_unknown_line()
    if events:
        watch_events.on_events(events)


def _handle_line(word: str, rest: str, watch_events: WatchEvents) -> None:
    """Report one line; raises ValueError if it is not part of the protocol."""
    if word == "heartbeat":
        sent_at = float(rest)
        if not sent_at <= monotonic():  # in the future, or not a number
            raise ValueError(rest)
        watch_events.on_heartbeat(sent_at)
    elif word == "watched":
        watch_events.on_watched(int(rest))
    elif word == "limit-reached":
        watch_events.on_limit_reached(int(rest))
    elif word == "ready" and not rest:
        watch_events.on_ready()
    else:
        raise ValueError(word)
