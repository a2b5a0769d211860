"""Track which directories are watched, and which should be: job directories and their output folders.

Event loop only. An unwatched entry has `last_event_at` = inf: it is never proven current without a read, so
a request for it needs a refresh. Watches are limited (inotify(7)), so unfinished jobs come first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from math import inf
from time import monotonic
from typing import Final, Protocol

import structlog

from jobsvc.index.catalogue.entries import Catalogue, Entry
from jobsvc.index.watch.job_folders import MAX_DEPTH, Folders, needed, paths, size_of

log = structlog.get_logger("jobsvc.index")

JOBS_PER_ITERATION: Final = 1000
"""Jobs that are added to a batch, or applied from one, in one callback of the event loop."""
MAX_BATCHES_IN_FLIGHT: Final = 2
"""Batches that are sent before the watcher process replies; one only for jobs of the initial pass."""
GATHER_S: Final = 0.005
"""Seconds for which new directories are collected into one batch."""
FINISHED_SHARE: Final = 0.9
"""Share of all watches that finished jobs can use; the rest is reserved for new jobs."""


class RefreshLater(Protocol):
    """Schedule refreshes of jobs: ahead of others if `urgent`, otherwise later."""

    def __call__(self, job_ids: Iterable[str], *, urgent: bool) -> None:
        """Schedule the refreshes and return without waiting for them."""


class WatchRegistry:
    """Decide which directories to watch, and record which are.

    `send` sends one batch of directories to the watcher process; `look` schedules refreshes.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        send: Callable[[list[str]], None],
        look: RefreshLater,
        limit: int,
        *,
        batch: int,
        lagging: Callable[[], bool],
    ) -> None:
        """Watch at most `limit` directories.

        `batch`: maximum directories per request to the watcher process; equal to its merge size, because
        smaller groups are set up again when merged. While `lagging()` is true only urgent directories are
        submitted: reading and adding watches compete with requests for CPU.
        """
        self._refresh_backlogged = lagging
        self._max_watches = max(batch - MAX_DEPTH, 1)
        self._catalogue = catalogue
        self._send = send
        self._look = look
        self.limit = limit
        """Maximum number of watched directories."""
        self.watched = 0
        """Number of watched directories."""
        self.limit_reached = False
        """Whether a directory was left unwatched because of the limit."""
        self.deferred = False
        """Whether jobs read for the first time are left unwatched until all jobs have been read."""
        self._active = False
        self._watched_without_job: set[str] = set()
        """Watched directories that have no readable job yet."""
        self._unwatchable: set[str] = set()
        self._queue: OrderedDict[str, Folders] = OrderedDict()
        self._initial: Iterator[str] = iter(())
        self._passing = False
        """Whether the initial pass over all jobs is still running."""
        self._again = False
        """Whether to repeat the initial pass, for jobs that it may have passed already."""
        self._next_batch: dict[str, Folders] = {}
        """The batch that is sent next."""
        self._in_flight: dict[int, dict[str, Folders]] = {}
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch everything again, unfinished jobs first; called when the watcher process is ready."""
        self.stop()
        self._active = True
        if not self.deferred:
            self._start_initial()

    def watch_deferred(self) -> None:
        """Watch the jobs that were deferred."""
        self.deferred = False
        if self._active:
            self._start_initial()

    def resume(self) -> None:
        """Continue sending batches; called when refreshes are no longer backlogged."""
        self._schedule_flush()

    def _start_initial(self) -> None:
        self._initial = iter([*self._catalogue.unfinished(), *self._catalogue.entries])
        self._passing, self._again = True, False
        self._schedule_flush()

    def stop(self) -> None:
        """Mark everything as unwatched; called when the watcher process has exited."""
        self._active, self._number, self.watched, self.limit_reached = False, 0, 0, False
        self._watched_without_job.clear()
        self._unwatchable.clear()
        self._queue.clear()
        self._next_batch = {}
        self._in_flight.clear()
        self._initial, self._passing = iter(()), False
        for entry in self._catalogue.entries.values():
            entry.last_event_at, entry.watched_folders = inf, None

    def knows(self, job_id: str) -> bool:
        """Return whether the directory is watched, about to be, or unwatchable."""
        entry = self._catalogue.get(job_id)
        if entry is not None and entry.watched_folders is not None:
            return True
        return (
            job_id in self._watched_without_job
            or job_id in self._unwatchable
            or any(job_id in books for books in (self._queue, self._next_batch, *self._in_flight.values()))
        )

    def ensure_watched(self, job_id: str, entry: Entry) -> None:
        """Request the watches that a job needs; called after each refresh of the job."""
        if not self._active:
            return
        if entry.watched_folders is None and job_id in self._watched_without_job:
            self._watched_without_job.discard(job_id)
            # The watch may be younger than the start of that refresh; the next refresh starts after it.
            entry.watched_folders, entry.last_event_at = (), monotonic()
            self._look([job_id], urgent=True)
        elif entry.watched_folders is None and self.deferred:
            return  # watch_deferred() covers all jobs once the first index is complete
        need = needed(entry.snapshot)
        if need is None:
            entry.last_event_at = inf
        elif entry.watched_folders is None and self._passing:
            self._again = True
        elif entry.watched_folders is None or (
            need is not entry.watched_folders and not set(need) <= set(entry.watched_folders)
        ):
            entry.last_event_at = inf
            self._enqueue(job_id, need)

    def job_added(self, job_id: str) -> None:
        """Watch a directory that was added to the root, and forget an earlier one of the same name."""
        self.job_removed(job_id)
        self._unwatchable.discard(job_id)
        self._enqueue(job_id, ())

    def watch_names(self, job_ids: Iterable[str]) -> None:
        """Watch directories that have no job yet, so that a later job is noticed."""
        for job_id in job_ids:
            if not self.knows(job_id):
                self._enqueue(job_id, ())

    def job_removed(self, job_id: str) -> None:
        """Mark a job as unwatched: its directory or its watch was removed."""
        self._watched_without_job.discard(job_id)
        for books in (self._queue, self._next_batch, *self._in_flight.values()):
            books.pop(job_id, None)
        if (entry := self._catalogue.get(job_id)) is not None:
            if entry.watched_folders is not None:
                self.watched -= 1 + len(entry.watched_folders)
            entry.last_event_at, entry.watched_folders = inf, None

    def unwatchable(self, job_id: str) -> None:
        """Mark a job as unwatched and do not watch it again: a name in its directory is not UTF-8."""
        self.job_removed(job_id)
        self._unwatchable.add(job_id)

    def moved(self, job_id: str, name: str) -> None:
        """Drop the job's folder watches if the added or removed `name` leads to one of them.

        The next refresh of the job requests them again.
        """
        for batch in (self._next_batch, *self._in_flight.values()):
            if batch.get(job_id):
                del batch[job_id]
        entry = self._catalogue.get(job_id)
        if (
            entry is not None
            and entry.watched_folders
            and any(path.partition("/")[0] == name for path in entry.watched_folders)
        ):
            self.watched -= len(entry.watched_folders)
            entry.last_event_at, entry.watched_folders = inf, ()

    def batch_watched(self, number: int) -> None:
        """Record that batch `number` is watched: a refresh that starts from now on is covered."""
        if (batch := self._in_flight.get(number)) is not None:
            self._apply_watched(number, batch, monotonic())

    def _apply_watched(self, number: int, batch: dict[str, Folders], now: float) -> None:
        """Record up to JOBS_PER_ITERATION jobs of a batch; the rest follows later, between requests."""
        if self._in_flight.get(number) is not batch:
            return
        part = [batch.popitem() for _ in range(min(len(batch), JOBS_PER_ITERATION))]
        for job_id, folders in part:
            self._watched_from(now, job_id, folders)
        known = self._catalogue.entries
        self._look((job_id for job_id, _ in part if job_id not in known), urgent=True)
        self._look((job_id for job_id, _ in part if job_id in known), urgent=False)
        if batch:
            asyncio.get_running_loop().call_soon(self._apply_watched, number, batch, now)
        else:
            del self._in_flight[number]
            self._schedule_flush()

    def _watched_from(self, now: float, job_id: str, folders: Folders) -> None:
        self.watched += 1 + len(folders)
        entry = self._catalogue.get(job_id)
        if entry is None:
            self._watched_without_job.add(job_id)
            return
        if entry.watched_folders is not None:
            self.watched -= 1 + len(entry.watched_folders)
        entry.last_event_at, entry.watched_folders = now, folders

    def limit_was_reached(self, number: int) -> None:
        """Record that the system refused batch `number`; lower the limit to the current number of watches."""
        self._in_flight.pop(number, None)
        self._on_limit(self.watched)

    def listed(self, names: AbstractSet[str]) -> None:
        """Forget directories without a job that are not among `names`, the names in the root."""
        self._watched_without_job &= names

    def _enqueue(self, job_id: str, folders: Folders) -> None:
        if (
            self._active
            and job_id not in self._unwatchable
            and not (self.limit_reached and self._room(job_id) < 0)
        ):
            self._queue[job_id] = folders
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._timer is None and self._active:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._flush)

    def _flush(self) -> None:
        """Send batches to the watcher process; a large one is collected in parts, between requests."""
        self._timer = None
        while self._active and len(self._in_flight) < MAX_BATCHES_IN_FLIGHT:
            if not self._gather():
                self._timer = asyncio.get_running_loop().call_later(0, self._flush)
                return
            if not self._next_batch:
                return
            batch, self._next_batch = self._next_batch, {}
            self._number += 1
            self._in_flight[self._number] = batch
            self._send([path for job_id, folders in batch.items() for path in paths(job_id, folders)])

    def _gather(self) -> bool:
        """Add up to JOBS_PER_ITERATION jobs to the next batch; return whether it is ready to be sent.

        It is ready if it is full or there are no more jobs.
        """
        sent = sum(map(size_of, self._in_flight.values()))
        size = size_of(self._next_batch)
        for _ in range(JOBS_PER_ITERATION):
            if size >= self._max_watches or (wish := self._next_queued()) is None:
                return True
            job_id, folders = wish
            if folders is None:
                continue
            if self._room(job_id) < sent + size + 1 + len(folders):
                self._on_limit(self.limit)
                continue
            size += 1 + len(folders)
            self._next_batch[job_id] = folders
        return False

    def _room(self, job_id: str) -> float:
        """Return how many more watches are available to this job; negative if the limit is exceeded."""
        entry = self._catalogue.get(job_id)
        urgent = entry is None or not entry.snapshot.job.status.final
        return self.limit * (1 if urgent else FINISHED_SHARE) - self.watched

    def _next_queued(self) -> tuple[str, Folders | None] | None:
        """Return the next job and the folders to watch (None: nothing to watch); None after the last job."""
        if self._queue:
            return self._queue.popitem(last=False)
        if self._in_flight or self._refresh_backlogged():
            return None
        if (job_id := next(self._initial, None)) is not None:
            entry = self._catalogue.get(job_id)
            unwatched = (
                entry is not None and entry.watched_folders is None and job_id not in self._unwatchable
            )
            return job_id, needed(entry.snapshot) if entry and unwatched else None
        self._passing = False
        if self._again:
            self._start_initial()
        return None

    def _on_limit(self, limit: int) -> None:
        if not self.limit_reached:
            advice = "raise fs.inotify.max_user_watches"
            log.warning("too-few-watches", allowed=limit, jobs=len(self._catalogue), advice=advice)
        self.limit_reached = True
        self.limit = min(self.limit, limit)
