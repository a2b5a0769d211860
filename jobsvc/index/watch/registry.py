"""Which directories are watched, and which should be: a job's own, and the folders that its output lies in.

Loop-owned. What is not watched is not vouched for: its entry is doubted for ever, and costs a look when it is
asked for. Watches are limited (inotify(7)), so jobs under way come first.
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
"""Jobs that go into a batch, or are taken in from one, in one callback of the loop."""
MAX_BATCHES_IN_FLIGHT: Final = 2
"""Batches that the watcher may be told before it answers; one only of what need not be watched at once."""
GATHER_S: Final = 0.005
"""Seconds for which new directories are gathered into one batch."""
FINISHED_SHARE: Final = 0.9
"""The part of all watches that finished jobs may take: the rest waits for those to come."""


class RefreshLater(Protocol):
    """Has jobs looked at: at once those that nothing is known of yet, or later."""

    def __call__(self, job_ids: Iterable[str], *, urgent: bool) -> None:
        """Return at once."""


class WatchRegistry:
    """The books of what is watched; `send` has directories watched, `look` has jobs looked at."""

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
        """Tell the watcher of at most `batch` directories at once: as many as it keeps together.

        With fewer it would set each one up several times until they are together. While looks are `lagging`
        it is not told of those that need not be watched at once: both take the processor from requests.
        """
        self._refresh_backlogged = lagging
        self._max_watches = max(batch - MAX_DEPTH, 1)
        self._catalogue = catalogue
        self._send = send
        self._look = look
        self.limit = limit
        """The most directories that may be watched."""
        self.watched = 0
        """Directories that are."""
        self.limit_reached = False
        """Whether there are more directories than watches."""
        self.deferred = False
        """Whether jobs that are read for the first time are left unwatched: to read all comes first."""
        self._active = False
        self._watched_without_job: set[str] = set()
        """Watched directories without a readable job in them, yet."""
        self._unwatchable: set[str] = set()
        self._queue: OrderedDict[str, Folders] = OrderedDict()
        self._initial: Iterator[str] = iter(())
        self._passing = False
        """Whether the backlog is not at its end."""
        self._again = False
        """Whether it is to be gone through once more, for jobs that it may have passed."""
        self._next_batch: dict[str, Folders] = {}
        """What the watcher is told of next."""
        self._in_flight: dict[int, dict[str, Folders]] = {}
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Have everything watched anew, jobs under way first: the watcher has just begun."""
        self.stop()
        self._active = True
        if not self.deferred:
            self._start_initial()

    def watch_deferred(self) -> None:
        """Have all those watched that were held back."""
        self.deferred = False
        if self._active:
            self._start_initial()

    def resume(self) -> None:
        """Take in that looks lag no more."""
        self._schedule_flush()

    def _start_initial(self) -> None:
        self._initial = iter([*self._catalogue.unfinished(), *self._catalogue.entries])
        self._passing, self._again = True, False
        self._schedule_flush()

    def stop(self) -> None:
        """Vouch for nothing: the watcher is gone."""
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
        """Whether the directory is watched, or about to be."""
        entry = self._catalogue.get(job_id)
        if entry is not None and entry.watched_folders is not None:
            return True
        return (
            job_id in self._watched_without_job
            or job_id in self._unwatchable
            or any(job_id in books for books in (self._queue, self._next_batch, *self._in_flight.values()))
        )

    def ensure_watched(self, job_id: str, entry: Entry) -> None:
        """Take in that a look was taken at a job: see to it that what it needs is watched."""
        if not self._active:
            return
        if entry.watched_folders is None and job_id in self._watched_without_job:
            self._watched_without_job.discard(job_id)
            # Was it watched before that look began? The next look certainly begins after.
            entry.watched_folders, entry.last_event_at = (), monotonic()
            self._look([job_id], urgent=True)
        elif entry.watched_folders is None and self.deferred:
            return  # once the first index is made, all are gone through
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
        """Have a directory watched that came into the root; one of the same name that was, is no more."""
        self.job_removed(job_id)
        self._unwatchable.discard(job_id)
        self._enqueue(job_id, ())

    def watch_names(self, job_ids: Iterable[str]) -> None:
        """Have directories watched that no job was found in: one may come."""
        for job_id in job_ids:
            if not self.knows(job_id):
                self._enqueue(job_id, ())

    def job_removed(self, job_id: str) -> None:
        """Vouch for this job no more: its directory went, or its watch."""
        self._watched_without_job.discard(job_id)
        for books in (self._queue, self._next_batch, *self._in_flight.values()):
            books.pop(job_id, None)
        if (entry := self._catalogue.get(job_id)) is not None:
            if entry.watched_folders is not None:
                self.watched -= 1 + len(entry.watched_folders)
            entry.last_event_at, entry.watched_folders = inf, None

    def unwatchable(self, job_id: str) -> None:
        """Leave this job alone: something in it can't be told."""
        self.job_removed(job_id)
        self._unwatchable.add(job_id)

    def moved(self, job_id: str, name: str) -> None:
        """Have a folder watched anew if it was this that came or went; the next look sees to it."""
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
        """Take in that a batch is watched: a look from now on is vouched for."""
        if (batch := self._in_flight.get(number)) is not None:
            self._apply_watched(number, batch, monotonic())

    def _apply_watched(self, number: int, batch: dict[str, Folders], now: float) -> None:
        """Do so for the first of them, and soon for the others: requests come between."""
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
        """Take in that the system allows no more; from now on only what is watched is."""
        self._in_flight.pop(number, None)
        self._on_limit(self.watched)

    def listed(self, names: AbstractSet[str]) -> None:
        """Forget directories that are there no more."""
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
        """Tell the watcher of more; a large batch is gathered a part at a time: requests come between."""
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
        """Take the next wishes into a batch; whether that is full now, or there are no more."""
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
        """How many more watches this job may have."""
        entry = self._catalogue.get(job_id)
        urgent = entry is None or not entry.snapshot.job.status.final
        return self.limit * (1 if urgent else FINISHED_SHARE) - self.watched

    def _next_queued(self) -> tuple[str, Folders | None] | None:
        """Give the next job that may have to be watched, and what of it, if anything; None after the last."""
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
