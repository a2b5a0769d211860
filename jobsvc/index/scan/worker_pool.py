"""Read many new jobs in worker processes, because the threads of one process share one CPU core (GIL).

Worker processes only save time: jobs for which none replies, for any reason, are read as if there were no
worker processes.

ProcessPoolExecutor reads about a tenth fewer jobs per second, delays the event loop longer (it unpickles in a
thread of this process), and leaves a resource tracker process of 7 MB behind.
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
from jobsvc.index.scan.worker_process import LENGTH_BYTES, decode_reply
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
        workers = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
        if len(job_ids) < MIN_JOBS or workers == 1:
            return job_ids
        batches = (job_ids[start : start + BATCH_JOBS] for start in range(0, len(job_ids), BATCH_JOBS))
        unread = await _concurrently(workers, lambda: self._run_worker(batches))
        return [*unread, *(job_id for batch in batches for job_id in batch)]

    async def _run_worker(self, batches: Iterator[Sequence[str]]) -> list[str]:
        try:
            process = await spawn.spawn(
                "jobsvc.index.scan.worker_process", *self._root.arguments(), nice=NICE
            )
        except OSError as exc:
            self._on_failed(exc)
            return []
        worker = WorkerHandle(process)
        try:
            unread = await _concurrently(PIPELINED_BATCHES, lambda: self._read_batches(worker, batches))
        finally:
            stderr = await spawn.kill(process)
        if worker.error is not None:
            self._on_failed(worker.error, stderr)
        return unread

    async def _read_batches(self, worker: WorkerHandle, batches: Iterator[Sequence[str]]) -> list[str]:
        unread: list[str] = []
        for batch in batches:
            results = await worker.read(batch)
            await self._apply(results)
            if len(results) < len(batch):
                read_ids = {result.job_id for result in results}
                unread += (job_id for job_id in batch if job_id not in read_ids)
            if worker.error is not None:
                break
        return unread

    async def _apply(self, results: Sequence[ReadResult]) -> None:
        async with self._applying:
            for start in range(0, len(results), SNAPSHOTS_PER_ITERATION):
                for result in results[start : start + SNAPSHOTS_PER_ITERATION]:
                    self._apply_result(result)
                await self._disk.wait_idle(MAX_IDLE_WAIT_S)

    def _on_failed(self, exc: Exception, stderr: str = "") -> None:
        log.warning("worker-failed", reason=stderr or str(exc) or type(exc).__name__)
        self._on_worker_failed()


class WorkerHandle:
    """One worker process; it replies to concurrent `read` calls in order."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._reply_order = asyncio.Lock()
        self.error: Exception | None = None
        """The error after which it is no longer used; None while it works."""

    async def read(self, job_ids: Sequence[str]) -> list[ReadResult]:
        """Read these jobs. Returns the results with a snapshot; [] once the process has failed."""
        assert self._process.stdin is not None  # noqa: S101 - spawn() creates the pipe
        self._process.stdin.write(orjson.dumps(job_ids) + b"\n")
        async with self._reply_order:
            if self.error is not None:
                return []
            try:
                return decode_reply(job_ids, await self._read_reply())
            except (OSError, TimeoutError, EOFError, ValueError, TypeError) as exc:
                self.error = exc
                return []

    async def _read_reply(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - spawn() creates the pipe
        async with asyncio.timeout(BATCH_TIMEOUT_S):
            size = int.from_bytes(await self._process.stdout.readexactly(LENGTH_BYTES), "little")
            return await self._process.stdout.readexactly(size)


async def _concurrently(count: int, work: Callable[[], Coroutine[None, None, list[str]]]) -> list[str]:
    """Run `work` `count` times concurrently; return the concatenated results, jobs that were not read."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(count)]
    return [job_id for task in tasks for job_id in task.result()]
