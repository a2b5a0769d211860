"""Queue the directories to watch, and send them to the watcher process in batches. Event loop only."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.watch.job_folders import MAX_DEPTH, Folders, folders_to_watch, paths, size_of
from jobsvc.index.watch.watch_limit import WatchLimit

JOBS_PER_ITERATION: Final = 1000
"""Jobs that are added to a batch, or recorded as watched, in one callback of the event loop."""
MAX_BATCHES_IN_FLIGHT: Final = 2
"""Batches that are sent before the watcher process replies; one only for jobs of the initial pass."""
GATHER_S: Final = 0.005
"""Seconds for which new directories are collected into one batch."""

Batch: TypeAlias = dict[str, Folders]
"""By job id, the folders to watch along with the job directory."""


class WatchQueue:
    """The jobs to watch: queued ones first, then those of the initial pass over all jobs."""

    def __init__(
        self,
        catalogue: Catalogue,
        limit: WatchLimit,
        send: Callable[[list[str]], None],
        *,
        batch_size: int,
        is_backlogged: Callable[[], bool],
    ) -> None:
        """`send` sends one batch of directories to the watcher process.

        `batch_size`: maximum directories per batch; equal to the watcher process's merge size, because
        smaller groups are set up again when merged. While `is_backlogged()` is true the initial pass waits:
        reading and adding watches compete with requests for CPU.
        """
        self._catalogue = catalogue
        self._limit = limit
        self._send = send
        self._full_batch_size = max(batch_size - MAX_DEPTH, 1)
        """Directories from which on a batch is full: the next job might have one more than fits."""
        self._is_backlogged = is_backlogged
        self.is_active = False
        """Whether the watcher process is ready."""
        self.unwatchable: set[str] = set()
        """Jobs that are not watched: a name in their directory is not UTF-8."""
        self.queued: OrderedDict[str, Folders] = OrderedDict()
        self._initial: Iterator[str] = iter(())
        self.is_passing = False
        """Whether the initial pass over all jobs is still running."""
        self._pass_again = False
        self._next_batch: Batch = {}
        """The batch that is sent next."""
        self.in_flight: dict[int, Batch] = {}
        """Batches that were sent and not yet recorded as watched, by number."""
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Accept jobs; called when the watcher process is ready."""
        self.is_active = True

    def stop(self) -> None:
        """Drop all jobs and refuse others; called when the watcher process has exited."""
        self.is_active, self._number = False, 0
        self.unwatchable.clear()
        self.queued.clear()
        self._next_batch = {}
        self.in_flight.clear()
        self._initial, self.is_passing = iter(()), False

    def start_pass(self) -> None:
        """Queue all unwatched jobs behind the queued ones, unfinished jobs first."""
        if not self.is_active:
            return
        self._initial = iter([*self._catalogue.unfinished(), *self._catalogue.entries])
        self.is_passing, self._pass_again = True, False
        self.flush_soon()

    def repeat_pass(self) -> None:
        """Repeat the initial pass, for a job that it may have passed already."""
        self._pass_again = True

    def add(self, job_id: str, folders: Folders) -> None:
        """Queue a job, unless it is unwatchable or the limit is exceeded."""
        if (
            self.is_active
            and job_id not in self.unwatchable
            and not (self._limit.reached and self._available(job_id) < 0)
        ):
            self.queued[job_id] = folders
            self.flush_soon()

    def discard(self, job_id: str) -> None:
        """Drop a job: its directory or its watch was removed."""
        for jobs in (self.queued, self._next_batch, *self.in_flight.values()):
            jobs.pop(job_id, None)

    def discard_folders(self, job_id: str) -> None:
        """Drop a job from the batches if folders are to be watched with it: one of them was replaced."""
        for batch in (self._next_batch, *self.in_flight.values()):
            if batch.get(job_id):
                del batch[job_id]

    def __contains__(self, job_id: str) -> bool:
        return any(job_id in jobs for jobs in (self.queued, self._next_batch, *self.in_flight.values()))

    def flush_soon(self) -> None:
        """Send batches after GATHER_S."""
        if self._timer is None and self.is_active:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._flush)

    def _flush(self) -> None:
        """Send batches to the watcher process; a large one is collected in parts, between requests."""
        self._timer = None
        while self.is_active and len(self.in_flight) < MAX_BATCHES_IN_FLIGHT:
            if not self._gather():
                self._timer = asyncio.get_running_loop().call_later(0, self._flush)
                return
            if not self._next_batch:
                return
            batch, self._next_batch = self._next_batch, {}
            self._number += 1
            self.in_flight[self._number] = batch
            self._send([path for job_id, folders in batch.items() for path in paths(job_id, folders)])

    def _gather(self) -> bool:
        """Add up to JOBS_PER_ITERATION jobs to the next batch; return whether it is ready to be sent.

        It is ready if it is full or there are no more jobs.
        """
        sent = sum(map(size_of, self.in_flight.values()))
        size = size_of(self._next_batch)
        for _ in range(JOBS_PER_ITERATION):
            if size >= self._full_batch_size or (job := self._next()) is None:
                return True
            job_id, folders = job
            if folders is None:
                continue
            if self._available(job_id) < sent + size + 1 + len(folders):
                self._limit.on_reached(len(self._catalogue))
                continue
            size += 1 + len(folders)
            self._next_batch[job_id] = folders
        return False

    def _available(self, job_id: str) -> float:
        entry = self._catalogue.get(job_id)
        return self._limit.available(finished=entry is not None and entry.snapshot.job.status.final)

    def _next(self) -> tuple[str, Folders | None] | None:
        """Return the next job and the folders to watch (None: nothing to watch); None after the last job."""
        if self.queued:
            return self.queued.popitem(last=False)
        if self.in_flight or self._is_backlogged():
            return None
        if (job_id := next(self._initial, None)) is not None:
            entry = self._catalogue.get(job_id)
            if entry is None or entry.watched_folders is not None or job_id in self.unwatchable:
                return job_id, None
            return job_id, folders_to_watch(entry.snapshot)
        self.is_passing = False
        if self._pass_again:
            self.start_pass()
        return None
