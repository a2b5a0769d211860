"""Tells those who wait of the catalogue's changes: of one job, or of an owner's jobs.

Who waits gives a function that is called, soon, when there is something to look at; what it is, he looks up.
Many are not called at once: requests get their turn in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.queries.change_feed import Feed
from jobsvc.storage.jobs.snapshot import Reading

Wake: TypeAlias = Callable[[], None]

SLICE: Final = 32
"""So many are called in one turn of the loop."""
KEEP: Final = 300.0
"""Seconds for which a feed goes on without a reader: his connection may have broken, and he comes back."""


class Changes:
    """Knows who waits for what. Loop-owned."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._of_job: dict[str, set[Wake]] = {}
        self._feeds: dict[str | None, Feed] = {}
        self._readers: dict[str | None, set[Wake]] = {}
        self._endings: dict[str | None, asyncio.TimerHandle] = {}
        self._due: dict[Wake, None] = {}
        catalogue.subscribe(self._changed)

    @contextmanager
    def of_job(self, job_id: str, wake: Wake) -> Iterator[None]:
        """Have `wake` called when a job changes, for the length of a block."""
        waiting = self._of_job.setdefault(job_id, set())
        waiting.add(wake)
        try:
            yield
        finally:
            waiting.discard(wake)
            if not waiting and self._of_job.get(job_id) is waiting:
                del self._of_job[job_id]

    @contextmanager
    def of_owner(self, owner: str | None, wake: Wake) -> Iterator[Feed]:
        """Have `wake` called when one of an owner's jobs (None: any) changes, for the length of a block."""
        feed = self._feeds.setdefault(owner, Feed(self._catalogue, owner))
        readers = self._readers.setdefault(owner, set())
        readers.add(wake)
        if (ending := self._endings.pop(owner, None)) is not None:
            ending.cancel()
        try:
            yield feed
        finally:
            readers.discard(wake)
            if not readers:
                loop = asyncio.get_running_loop()
                self._endings[owner] = loop.call_later(KEEP, self._end, owner)

    def wake(self, wakes: Iterable[Wake]) -> None:
        """Call all of these soon, each once however often that is asked for meanwhile."""
        idle = not self._due
        self._due.update(dict.fromkeys(wakes))
        if idle and self._due:
            self._wake_some()

    def _wake_some(self) -> None:
        for wake in [wake for wake, _ in zip(self._due, range(SLICE), strict=False)]:
            del self._due[wake]
            wake()
        if self._due:
            asyncio.get_running_loop().call_soon(self._wake_some)

    def _end(self, owner: str | None) -> None:
        del self._feeds[owner], self._readers[owner], self._endings[owner]

    def _changed(self, job_id: str, before: Reading | None, after: Reading | None) -> None:
        if (waiting := self._of_job.get(job_id)) is not None:
            self.wake(waiting)
        if not self._feeds:
            return
        owners = {None, *(reading.job.owner for reading in (before, after) if reading is not None)}
        for owner in owners:
            if (feed := self._feeds.get(owner)) is not None:
                feed.add(job_id, before)
                self.wake(self._readers[owner])
