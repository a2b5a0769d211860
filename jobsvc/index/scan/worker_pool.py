"""Has very many new jobs read by processes beside the service's own, whose threads share one core.

A scout only ever saves time: what none answers for, for whatever reason, is left to be read as if there were
no scouts.
"""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Final

import orjson
import structlog

from jobsvc.index.processes import spawn
from jobsvc.index.scan.worker_main import LENGTH, unpacked
from jobsvc.storage.executor import Disk
from jobsvc.storage.jobs.batch_read import Found
from jobsvc.storage.jobs.reader import JobsRoot

log = structlog.get_logger("jobsvc.index")

WORTH: Final = 10_000
"""New jobs from which on scouts are sent out: an interpreter alone takes as long to begin as a thousand."""
MOST: Final = 3
"""Scouts at once; the loop can't take in what more of them find."""
NICE: Final = 10
"""Whoever asks the service something comes first."""
BATCH: Final = 250
"""Jobs that a scout is asked for at once."""
AHEAD: Final = 2
"""Batches that each has before it, so that it need not wait while the loop takes one in."""
AT_ONCE: Final = 25
"""Readings that are taken in before others have their turn at the loop."""
REST: Final = 0.02
"""Seconds that a look at one job, for a request or a poll, is waited for before more is taken in."""
PATIENCE: Final = 30.0
"""Seconds that a scout has for a batch; on a cold disk a job takes some milliseconds."""


class Scouts:
    """Sends scouts out; `accept` takes in each reading as it comes."""

    def __init__(
        self,
        root: JobsRoot,
        disk: Disk,
        accept: Callable[[Found], None],
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        """`on_lost` is called for each scout that fails."""
        self._root = root
        self._disk = disk
        self._accept = accept
        self._on_lost = on_lost or _ignore
        self._taking_in = asyncio.Lock()

    async def read(self, job_ids: Sequence[str]) -> Sequence[str]:
        """Have these read; returns those that no scout had a reading of: all of them, where none is sent."""
        number = min(len(os.sched_getaffinity(0)), MOST)
        if len(job_ids) < WORTH or number == 1:
            return job_ids
        batches = (job_ids[start : start + BATCH] for start in range(0, len(job_ids), BATCH))
        left = await _together(number, lambda: self._send(batches))
        return [*left, *(job_id for batch in batches for job_id in batch)]

    async def _send(self, batches: Iterator[Sequence[str]]) -> list[str]:
        try:
            process = await spawn.begin("jobsvc.index.scan.worker_main", *self._root.arguments(), nice=NICE)
        except OSError as failed:
            self._lost(failed)
            return []
        scout = Scout(process)
        try:
            left = await _together(AHEAD, lambda: self._ask(scout, batches))
        finally:
            words = await asyncio.shield(spawn.end(process))
        if scout.failed is not None:
            self._lost(scout.failed, words)
        return left

    async def _ask(self, scout: Scout, batches: Iterator[Sequence[str]]) -> list[str]:
        left: list[str] = []
        for batch in batches:
            found = await scout.read(batch)
            await self._take_in(found)
            if len(found) < len(batch):
                seen = {one.job_id for one in found}
                left += (job_id for job_id in batch if job_id not in seen)
            if scout.failed is not None:
                break
        return left

    async def _take_in(self, found: Sequence[Found]) -> None:
        async with self._taking_in:
            for start in range(0, len(found), AT_ONCE):
                for one in found[start : start + AT_ONCE]:
                    self._accept(one)
                await self._disk.calm(REST)

    def _lost(self, failed: Exception, words: str = "") -> None:
        log.warning("scout-lost", reason=words or str(failed) or type(failed).__name__)
        self._on_lost()


class Scout:
    """One process; those who ask it at the same time are answered in turn."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self.failed: Exception | None = None
        """Why it answers no more."""

    async def read(self, job_ids: Sequence[str]) -> list[Found]:
        """Have these read; returns what gave a reading: nothing, once the process has failed."""
        assert self._process.stdin is not None  # noqa: S101 - asked for by child.begin
        self._process.stdin.write(orjson.dumps(job_ids) + b"\n")
        async with self._turn:
            if self.failed is not None:
                return []
            try:
                return unpacked(job_ids, await self._answer())
            except (OSError, TimeoutError, EOFError, ValueError, TypeError) as failed:
                self.failed = failed
                return []

    async def _answer(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - asked for by child.begin
        async with asyncio.timeout(PATIENCE):
            size = int.from_bytes(await self._process.stdout.readexactly(LENGTH), "little")
            return await self._process.stdout.readexactly(size)


async def _together(number: int, work: Callable[[], Coroutine[None, None, list[str]]]) -> list[str]:
    """Do so many times the same work side by side; returns what all have left."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(number)]
    return [job_id for task in tasks for job_id in task.result()]


def _ignore() -> None:
    """Nobody asked to be told."""
