"""Read many new jobs in worker processes, because the threads of one process share one CPU core (GIL).

Worker processes only save time: jobs for which none replies, for any reason, are read as if there were no
worker processes.
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
from jobsvc.index.scan.worker_main import LENGTH_BYTES, decode_reply
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.batch_read import ReadResult
from jobsvc.storage.jobs.reader import JobsRoot

log = structlog.get_logger("jobsvc.index")

MIN_JOBS: Final = 10_000
"""Minimum new jobs to start worker processes: starting an interpreter takes as long as reading 1,000."""
MAX_WORKERS: Final = 3
"""Worker processes at once; the event loop could not apply the results of more."""
NICE: Final = 10
"""Niceness of worker processes, so that requests come first."""
BATCH_JOBS: Final = 250
"""Jobs per batch sent to a worker process."""
PIPELINED_BATCHES: Final = 2
"""Batches sent to each worker process ahead, so that it does not wait while the loop applies one."""
SNAPSHOTS_PER_ITERATION: Final = 25
"""Snapshots applied before the event loop runs other callbacks."""
MAX_IDLE_WAIT_S: Final = 0.02
"""Seconds to wait for metadata reads, of requests or polls, to end before more snapshots are applied."""
BATCH_TIMEOUT_S: Final = 30.0
"""Seconds after which a batch fails; on a cold disk a job takes some milliseconds."""


class WorkerPool:
    """Start worker processes for a bulk read, and apply their results. Event loop only."""

    def __init__(
        self,
        root: JobsRoot,
        disk: StorageExecutor,
        apply: Callable[[ReadResult], None],
        on_worker_failed: Callable[[], None],
    ) -> None:
        """`apply` is called with each result, `on_worker_failed` for each worker process that fails."""
        self._root = root
        self._disk = disk
        self._apply_result = apply
        self._on_worker_failed = on_worker_failed
        self._applying = asyncio.Lock()

    async def read(self, job_ids: Sequence[str]) -> Sequence[str]:
        """Read these jobs; return those for which no worker process had a snapshot.

        With fewer than MIN_JOBS jobs, or one usable CPU, no process is started and all are returned.
        """
        number = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
        if len(job_ids) < MIN_JOBS or number == 1:
            return job_ids
        batches = (job_ids[start : start + BATCH_JOBS] for start in range(0, len(job_ids), BATCH_JOBS))
        left = await _together(number, lambda: self._send(batches))
        return [*left, *(job_id for batch in batches for job_id in batch)]

    async def _send(self, batches: Iterator[Sequence[str]]) -> list[str]:
        try:
            process = await spawn.spawn("jobsvc.index.scan.worker_main", *self._root.arguments(), nice=NICE)
        except OSError as failed:
            self._on_failed(failed)
            return []
        worker = WorkerProcess(process)
        try:
            left = await _together(PIPELINED_BATCHES, lambda: self._ask(worker, batches))
        finally:
            words = await spawn.kill(process)
        if worker.failed is not None:
            self._on_failed(worker.failed, words)
        return left

    async def _ask(self, worker: WorkerProcess, batches: Iterator[Sequence[str]]) -> list[str]:
        left: list[str] = []
        for batch in batches:
            found = await worker.read(batch)
            await self._apply(found)
            if len(found) < len(batch):
                seen = {one.job_id for one in found}
                left += (job_id for job_id in batch if job_id not in seen)
            if worker.failed is not None:
                break
        return left

    async def _apply(self, found: Sequence[ReadResult]) -> None:
        async with self._applying:
            for start in range(0, len(found), SNAPSHOTS_PER_ITERATION):
                for one in found[start : start + SNAPSHOTS_PER_ITERATION]:
                    self._apply_result(one)
                await self._disk.wait_idle(MAX_IDLE_WAIT_S)

    def _on_failed(self, failed: Exception, words: str = "") -> None:
        log.warning("worker-failed", reason=words or str(failed) or type(failed).__name__)
        self._on_worker_failed()


class WorkerProcess:
    """One worker process; it replies to concurrent `read` calls in order."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()
        self.failed: Exception | None = None
        """The error after which it is no longer used; None while it works."""

    async def read(self, job_ids: Sequence[str]) -> list[ReadResult]:
        """Read these jobs. Returns the results with a snapshot; [] once the process has failed."""
        assert self._process.stdin is not None  # noqa: S101 - spawn() creates the pipe
        self._process.stdin.write(orjson.dumps(job_ids) + b"\n")
        async with self._turn:
            if self.failed is not None:
                return []
            try:
                return decode_reply(job_ids, await self._answer())
            except (OSError, TimeoutError, EOFError, ValueError, TypeError) as failed:
                self.failed = failed
                return []

    async def _answer(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - spawn() creates the pipe
        async with asyncio.timeout(BATCH_TIMEOUT_S):
            size = int.from_bytes(await self._process.stdout.readexactly(LENGTH_BYTES), "little")
            return await self._process.stdout.readexactly(size)


async def _together(number: int, work: Callable[[], Coroutine[None, None, list[str]]]) -> list[str]:
    """Run `work` `number` times concurrently; return the concatenated results, jobs that were not read."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(number)]
    return [job_id for task in tasks for job_id in task.result()]
