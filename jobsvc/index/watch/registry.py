"""Track which directories are watched, and which should be: job directories and their output folders.

Event loop only. An unwatched entry has `last_event_at` = inf: it is never proven current without a read, so
a request for it needs a refresh. Watches are limited (inotify(7)), so unfinished jobs come first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from math import inf
from time import monotonic

from jobsvc.index.catalogue.entries import Catalogue, Entry
from jobsvc.index.watch.job_folders import Folders, folders_to_watch
from jobsvc.index.watch.watch_limit import WatchLimit
from jobsvc.index.watch.watch_queue import JOBS_PER_ITERATION, Batch, WatchQueue


class WatchRegistry:
    """Decide which directories to watch, and record which are."""

    def __init__(
        self,
        catalogue: Catalogue,
        limit: WatchLimit,
        queue: WatchQueue,
        *,
        refresh_now: Callable[[Iterable[str]], None],
        refresh_later: Callable[[Iterable[str]], None],
    ) -> None:
        """`refresh_now` and `refresh_later` queue jobs to be read."""
        self._catalogue = catalogue
        self.limit = limit
        self._queue = queue
        self._refresh_now = refresh_now
        self._refresh_later = refresh_later
        self.deferred = True
        """Whether jobs read for the first time are left unwatched until all jobs have been read."""
        self._watched_without_job: set[str] = set()
        """Watched directories that have no readable job yet."""

    def start(self) -> None:
        """Watch everything again, unfinished jobs first; called when the watcher process is ready."""
        self.stop()
        self._queue.start()
        if not self.deferred:
            self._queue.start_pass()

    def watch_deferred(self) -> None:
        """Watch the jobs that were deferred."""
        self.deferred = False
        self._queue.start_pass()

    def stop(self) -> None:
        """Mark everything as unwatched; called when the watcher process has exited."""
        self.limit.reset()
        self._watched_without_job.clear()
        self._queue.stop()
        for entry in self._catalogue.entries.values():
            entry.last_event_at, entry.watched_folders = inf, None

    def knows(self, job_id: str) -> bool:
        """Return whether the directory is watched, about to be, or unwatchable."""
        entry = self._catalogue.get(job_id)
        if entry is not None and entry.watched_folders is not None:
            return True
        return (
            job_id in self._watched_without_job or job_id in self._queue.unwatchable or job_id in self._queue
        )

    def ensure_watched(self, job_id: str, entry: Entry) -> None:
        """Request the watches that a job needs; called after each refresh of the job."""
        if not self._queue.is_active:
            return
        if entry.watched_folders is None and job_id in self._watched_without_job:
            self._watched_without_job.discard(job_id)
            # The watch may be younger than the start of that refresh; the next refresh starts after it.
            entry.watched_folders, entry.last_event_at = (), monotonic()
            self._refresh_now([job_id])
        elif entry.watched_folders is None and self.deferred:
            return  # watch_deferred() covers all jobs once the first index is complete
        folders = folders_to_watch(entry.snapshot)
        if folders is None:
            entry.last_event_at = inf
        elif entry.watched_folders is None and self._queue.is_passing:
            self._queue.repeat_pass()
        elif entry.watched_folders is None or (
            folders is not entry.watched_folders and not set(folders) <= set(entry.watched_folders)
        ):
            entry.last_event_at = inf
            self._queue.add(job_id, folders)

    def job_added(self, job_id: str) -> None:
        """Watch a directory that was added to the root, and forget an earlier one of the same name."""
        self.job_removed(job_id)
        self._queue.unwatchable.discard(job_id)
        self._queue.add(job_id, ())

    def watch_names(self, job_ids: Iterable[str]) -> None:
        """Watch directories that have no job yet, so that a later job is noticed."""
        for job_id in job_ids:
            if not self.knows(job_id):
                self._queue.add(job_id, ())

    def job_removed(self, job_id: str) -> None:
        """Mark a job as unwatched: its directory or its watch was removed."""
        self._watched_without_job.discard(job_id)
        self._queue.discard(job_id)
        if (entry := self._catalogue.get(job_id)) is not None:
            if entry.watched_folders is not None:
                self.limit.used -= 1 + len(entry.watched_folders)
            entry.last_event_at, entry.watched_folders = inf, None

    def unwatchable(self, job_id: str) -> None:
        """Mark a job as unwatched and do not watch it again: a name in its directory is not UTF-8."""
        self.job_removed(job_id)
        self._queue.unwatchable.add(job_id)

    def moved(self, job_id: str, name: str) -> None:
        """Drop the job's folder watches if the added or removed `name` leads to one of them.

        The next refresh of the job requests them again.
        """
        self._queue.discard_folders(job_id)
        entry = self._catalogue.get(job_id)
        if (
            entry is not None
            and entry.watched_folders
            and any(path.partition("/")[0] == name for path in entry.watched_folders)
        ):
            self.limit.used -= len(entry.watched_folders)
            entry.last_event_at, entry.watched_folders = inf, ()

    def batch_watched(self, number: int) -> None:
        """Record that batch `number` is watched: a refresh that starts from now on is covered."""
        if (batch := self._queue.in_flight.get(number)) is not None:
            self._record_watched(number, batch, monotonic())

    def _record_watched(self, number: int, batch: Batch, now: float) -> None:
        """Record up to JOBS_PER_ITERATION jobs of a batch; the rest follows later, between requests."""
        if self._queue.in_flight.get(number) is not batch:
            return
        part = [batch.popitem() for _ in range(min(len(batch), JOBS_PER_ITERATION))]
        for job_id, folders in part:
            self._watched_from(now, job_id, folders)
        known = self._catalogue.entries
        self._refresh_now(job_id for job_id, _ in part if job_id not in known)
        self._refresh_later(job_id for job_id, _ in part if job_id in known)
        if batch:
            asyncio.get_running_loop().call_soon(self._record_watched, number, batch, now)
        else:
            del self._queue.in_flight[number]
            self._queue.flush_soon()

    def _watched_from(self, now: float, job_id: str, folders: Folders) -> None:
        self.limit.used += 1 + len(folders)
        entry = self._catalogue.get(job_id)
        if entry is None:
            self._watched_without_job.add(job_id)
            return
        if entry.watched_folders is not None:
            self.limit.used -= 1 + len(entry.watched_folders)
        entry.last_event_at, entry.watched_folders = now, folders

    def limit_was_reached(self, number: int) -> None:
        """Record that the system refused batch `number`; lower the limit to the current number of watches."""
        self._queue.in_flight.pop(number, None)
        self.limit.on_reached(len(self._catalogue), refused=True)

    def listed(self, names: AbstractSet[str]) -> None:
        """Forget directories without a job that are not among `names`, the names in the root."""
        self._watched_without_job &= names
