"""Notify subscribers of the catalogue's changes: of one job, or of an owner's jobs.

A subscriber's callback is called soon after a change, without arguments; the subscriber looks up the change.
Many callbacks are spread over several iterations of the event loop, so that requests run in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final, TypeAlias

from jobsvc.index.catalogue.change_journal import ChangeJournal
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.queries.change_feed import ChangeFeed
from jobsvc.storage.jobs.snapshot import JobSnapshot

Callback: TypeAlias = Callable[[], None]

CALLS_PER_ITERATION: Final = 32
"""Callbacks that are called in one iteration of the event loop."""
KEEP_FEED_S: Final = 300.0
"""Seconds for which a feed without readers is kept, so that a client whose connection broke can resume."""


class Subscriptions:
    """Subscriptions to changes of jobs and owners. Event loop only."""

    def __init__(self, catalogue: Catalogue, journal: ChangeJournal) -> None:
        self._catalogue = catalogue
        self._journal = journal
        self._by_job: dict[str, set[Callback]] = {}
        self._feeds: dict[str | None, ChangeFeed] = {}
        self._readers: dict[str | None, set[Callback]] = {}
        self._expiry_timers: dict[str | None, asyncio.TimerHandle] = {}
        self._due: dict[Callback, None] = {}
        catalogue.subscribe(self._on_change)

    @contextmanager
    def subscribe_job(self, job_id: str, callback: Callback) -> Iterator[None]:
        """Call `callback` when a job changes, for the duration of the `with` block."""
        callbacks = self._by_job.setdefault(job_id, set())
        callbacks.add(callback)
        try:
            yield
        finally:
            callbacks.discard(callback)
            if not callbacks and self._by_job.get(job_id) is callbacks:
                del self._by_job[job_id]

    @contextmanager
    def subscribe_owner(self, owner: str | None, callback: Callback) -> Iterator[ChangeFeed]:
        """Call `callback` when one of an owner's jobs (None: any job) changes, for the duration of the block.

        The value of the `with` statement is the owner's change feed.
        """
        feed = self._feeds.setdefault(owner, ChangeFeed(self._catalogue, self._journal, owner))
        readers = self._readers.setdefault(owner, set())
        readers.add(callback)
        if (timer := self._expiry_timers.pop(owner, None)) is not None:
            timer.cancel()
        try:
            yield feed
        finally:
            readers.discard(callback)
            if not readers:
                loop = asyncio.get_running_loop()
                self._expiry_timers[owner] = loop.call_later(KEEP_FEED_S, self._end, owner)

    def _on_change(self, job_id: str, before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        """Notify the subscribers of a changed job and of its owner; called by the catalogue."""
        if (callbacks := self._by_job.get(job_id)) is not None:
            self.notify(callbacks)
        if not self._feeds:
            return
        # None: the readers of all owners' changes.
        owners = {None, *(snapshot.job.owner for snapshot in (before, after) if snapshot is not None)}
        for owner in owners:
            if (feed := self._feeds.get(owner)) is not None:
                feed.add(job_id, before)
                self.notify(self._readers[owner])

    def notify(self, callbacks: Iterable[Callback]) -> None:
        """Call these callbacks soon; one that is already due is called once.

        The first CALLS_PER_ITERATION are called at once if none is due.
        """
        idle = not self._due
        self._due.update(dict.fromkeys(callbacks))
        if idle and self._due:
            self._call_some()

    def _call_some(self) -> None:
        """Call the first callbacks that are due, and the others in later iterations of the event loop."""
        for callback in list(islice(self._due, CALLS_PER_ITERATION)):
            del self._due[callback]
            callback()
        if self._due:
            asyncio.get_running_loop().call_soon(self._call_some)

    def _end(self, owner: str | None) -> None:
        del self._feeds[owner], self._readers[owner], self._expiry_timers[owner]
