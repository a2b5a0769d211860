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
from jobsvc.index.watch.job_folders import DEEPEST, Folders, needed, paths, size_of

log = structlog.get_logger("jobsvc.index")

AT_ONCE: Final = 1000
"""Jobs that go into a batch, or are taken in from one, in one callback of the loop."""
AHEAD: Final = 2
"""Batches that the watcher may be told before it answers; one only of what need not be watched at once."""
GATHER: Final = 0.005
"""Seconds for which new directories are gathered into one batch."""
FINISHED_SHARE: Final = 0.9
"""The part of all watches that finished jobs may take: the rest waits for those to come."""


class Look(Protocol):
    """Has jobs looked at: at once those that nothing is known of yet, or later."""

    def __call__(self, job_ids: Iterable[str], *, urgent: bool) -> None:
        """Return at once."""


class Watching:
    """The books of what is watched; `send` has directories watched, `look` has jobs looked at."""

    def __init__(
        self,
        catalogue: Catalogue,
        send: Callable[[list[str]], None],
        look: Look,
        limit: int,
        *,
        batch: int,
        lagging: Callable[[], bool],
    ) -> None:
        """Tell the watcher of at most `batch` directories at once: as many as it keeps together.

        With fewer it would set each one up several times until they are together. While looks are `lagging`
        it is not told of those that need not be watched at once: both take the processor from requests.
        """
        self._lagging = lagging
        self._most = max(batch - DEEPEST, 1)
        self._catalogue = catalogue
        self._send = send
        self._look = look
        self.limit = limit
        """The most directories that may be watched."""
        self.watched = 0
        """Directories that are."""
        self.short = False
        """Whether there are more directories than watches."""
        self.held = False
        """Whether jobs that are read for the first time are left unwatched: to read all comes first."""
        self._active = False
        self._bare: set[str] = set()
        """Watched directories without a readable job in them, yet."""
        self._blind: set[str] = set()
        self._wanted: OrderedDict[str, Folders] = OrderedDict()
        self._backlog: Iterator[str] = iter(())
        self._passing = False
        """Whether the backlog is not at its end."""
        self._again = False
        """Whether it is to be gone through once more, for jobs that it may have passed."""
        self._gathered: dict[str, Folders] = {}
        """What the watcher is told of next."""
        self._sent: dict[int, dict[str, Folders]] = {}
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Have everything watched anew, jobs under way first: the watcher has just begun."""
        self.end()
        self._active = True
        if not self.held:
            self._begin_backlog()

    def catch_up(self) -> None:
        """Have all those watched that were held back."""
        self.held = False
        if self._active:
            self._begin_backlog()

    def go_on(self) -> None:
        """Take in that looks lag no more."""
        self._soon()

    def _begin_backlog(self) -> None:
        self._backlog = iter([*self._catalogue.unfinished(), *self._catalogue.entries])
        self._passing, self._again = True, False
        self._soon()

    def end(self) -> None:
        """Vouch for nothing: the watcher is gone."""
        self._active, self._number, self.watched, self.short = False, 0, 0, False
        self._bare.clear()
        self._blind.clear()
        self._wanted.clear()
        self._gathered = {}
        self._sent.clear()
        self._backlog, self._passing = iter(()), False
        for entry in self._catalogue.entries.values():
            entry.doubted, entry.watched = inf, None

    def knows(self, job_id: str) -> bool:
        """Whether the directory is watched, or about to be."""
        entry = self._catalogue.get(job_id)
        if entry is not None and entry.watched is not None:
            return True
        return (
            job_id in self._bare
            or job_id in self._blind
            or any(job_id in books for books in (self._wanted, self._gathered, *self._sent.values()))
        )

    def settle(self, job_id: str, entry: Entry) -> None:
        """Take in that a look was taken at a job: see to it that what it needs is watched."""
        if not self._active:
            return
        if entry.watched is None and job_id in self._bare:
            self._bare.discard(job_id)
            # Was it watched before that look began? The next look certainly begins after.
            entry.watched, entry.doubted = (), monotonic()
            self._look([job_id], urgent=True)
        elif entry.watched is None and self.held:
            return  # once the first index is made, all are gone through
        need = needed(entry.reading)
        if need is None:
            entry.doubted = inf
        elif entry.watched is None and self._passing:
            self._again = True
        elif entry.watched is None or (need is not entry.watched and not set(need) <= set(entry.watched)):
            entry.doubted = inf
            self._want(job_id, need)

    def appeared(self, job_id: str) -> None:
        """Have a directory watched that came into the root; one of the same name that was, is no more."""
        self.vanished(job_id)
        self._blind.discard(job_id)
        self._want(job_id, ())

    def expect(self, job_ids: Iterable[str]) -> None:
        """Have directories watched that no job was found in: one may come."""
        for job_id in job_ids:
            if not self.knows(job_id):
                self._want(job_id, ())

    def vanished(self, job_id: str) -> None:
        """Vouch for this job no more: its directory went, or its watch."""
        self._bare.discard(job_id)
        for books in (self._wanted, self._gathered, *self._sent.values()):
            books.pop(job_id, None)
        if (entry := self._catalogue.get(job_id)) is not None:
            if entry.watched is not None:
                self.watched -= 1 + len(entry.watched)
            entry.doubted, entry.watched = inf, None

    def blinded(self, job_id: str) -> None:
        """Leave this job alone: something in it can't be told."""
        self.vanished(job_id)
        self._blind.add(job_id)

    def moved(self, job_id: str, name: str) -> None:
        """Have a folder watched anew if it was this that came or went; the next look sees to it."""
        for batch in (self._gathered, *self._sent.values()):
            if batch.get(job_id):
                del batch[job_id]
        entry = self._catalogue.get(job_id)
        if (
            entry is not None
            and entry.watched
            and any(path.partition("/")[0] == name for path in entry.watched)
        ):
            self.watched -= len(entry.watched)
            entry.doubted, entry.watched = inf, ()

    def armed(self, number: int) -> None:
        """Take in that a batch is watched: a look from now on is vouched for."""
        if (batch := self._sent.get(number)) is not None:
            self._take_in(number, batch, monotonic())

    def _take_in(self, number: int, batch: dict[str, Folders], now: float) -> None:
        """Do so for the first of them, and soon for the others: requests come between."""
        if self._sent.get(number) is not batch:
            return
        part = [batch.popitem() for _ in range(min(len(batch), AT_ONCE))]
        for job_id, folders in part:
            self._watched_from(now, job_id, folders)
        known = self._catalogue.entries
        self._look((job_id for job_id, _ in part if job_id not in known), urgent=True)
        self._look((job_id for job_id, _ in part if job_id in known), urgent=False)
        if batch:
            asyncio.get_running_loop().call_soon(self._take_in, number, batch, now)
        else:
            del self._sent[number]
            self._soon()

    def _watched_from(self, now: float, job_id: str, folders: Folders) -> None:
        self.watched += 1 + len(folders)
        entry = self._catalogue.get(job_id)
        if entry is None:
            self._bare.add(job_id)
            return
        if entry.watched is not None:
            self.watched -= 1 + len(entry.watched)
        entry.doubted, entry.watched = now, folders

    def refused(self, number: int) -> None:
        """Take in that the system allows no more; from now on only what is watched is."""
        self._sent.pop(number, None)
        self._fall_short(self.watched)

    def listed(self, names: AbstractSet[str]) -> None:
        """Forget directories that are there no more."""
        self._bare &= names

    def _want(self, job_id: str, folders: Folders) -> None:
        if self._active and job_id not in self._blind and not (self.short and self._room(job_id) < 0):
            self._wanted[job_id] = folders
            self._soon()

    def _soon(self) -> None:
        if self._timer is None and self._active:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self._flush)

    def _flush(self) -> None:
        """Tell the watcher of more; a large batch is gathered a part at a time: requests come between."""
        self._timer = None
        while self._active and len(self._sent) < AHEAD:
            if not self._gather():
                self._timer = asyncio.get_running_loop().call_later(0, self._flush)
                return
            if not self._gathered:
                return
            batch, self._gathered = self._gathered, {}
            self._number += 1
            self._sent[self._number] = batch
            self._send([path for job_id, folders in batch.items() for path in paths(job_id, folders)])

    def _gather(self) -> bool:
        """Take the next wishes into a batch; whether that is full now, or there are no more."""
        sent = sum(map(size_of, self._sent.values()))
        size = size_of(self._gathered)
        for _ in range(AT_ONCE):
            if size >= self._most or (wish := self._next_wish()) is None:
                return True
            job_id, folders = wish
            if folders is None:
                continue
            if self._room(job_id) < sent + size + 1 + len(folders):
                self._fall_short(self.limit)
                continue
            size += 1 + len(folders)
            self._gathered[job_id] = folders
        return False

    def _room(self, job_id: str) -> float:
        """How many more watches this job may have."""
        entry = self._catalogue.get(job_id)
        urgent = entry is None or not entry.reading.job.status.final
        return self.limit * (1 if urgent else FINISHED_SHARE) - self.watched

    def _next_wish(self) -> tuple[str, Folders | None] | None:
        """Give the next job that may have to be watched, and what of it, if anything; None after the last."""
        if self._wanted:
            return self._wanted.popitem(last=False)
        if self._sent or self._lagging():
            return None
        if (job_id := next(self._backlog, None)) is not None:
            entry = self._catalogue.get(job_id)
            unwatched = entry is not None and entry.watched is None and job_id not in self._blind
            return job_id, needed(entry.reading) if entry and unwatched else None
        self._passing = False
        if self._again:
            self._begin_backlog()
        return None

    def _fall_short(self, limit: int) -> None:
        if not self.short:
            advice = "raise fs.inotify.max_user_watches"
            log.warning("too-few-watches", allowed=limit, jobs=len(self._catalogue), advice=advice)
        self.short = True
        self.limit = min(self.limit, limit)
