"""The index as it lives: hints, a poll of unfinished jobs, a full reconcile, each mending the one before.

Every look goes through Disk, in batches that give up their thread after a tenth of a second. No request ever
waits for any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from math import inf
from time import monotonic
from typing import Final

import structlog

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.domain.job import BadRecord
from jobsvc.index import reconcile
from jobsvc.index.catalogue import Catalogue
from jobsvc.index.coverage import Coverage
from jobsvc.index.freshness import Freshness
from jobsvc.index.presence import Presence
from jobsvc.index.sweep import Sweep, Wanted
from jobsvc.index.watcher import Watcher
from jobsvc.storage.disk import Disk
from jobsvc.storage.layout import is_job_id
from jobsvc.storage.mounts import file_system, is_local
from jobsvc.storage.place import Place, names_in, place_of
from jobsvc.storage.reader import JobsRoot, Scan

log = structlog.get_logger("jobsvc.index")

BATCH: Final = 500
PROBE_INTERVAL: Final = 0.5
RECONCILE_INTERVAL: Final = 60.0
LOOKERS: Final = 8
LOOK_AGAIN: Final = (0.1, 0.5)
"""Seconds between looks at a new directory: it is being filled, and the watch upon it came late."""
STOP: Final = 3.0


class Watch(StrEnum):
    """How changes are learnt of."""

    AUTO = "auto"
    EVENTS = "events"
    POLL = "poll"


@dataclass(slots=True)
class Figures:
    """What the operator may want to know of the index; moments are monotonic seconds."""

    ignored: int = 0
    """Names beneath the root that can't be jobs."""
    restarts: int = 0
    """Times that the watcher had to be begun again."""
    missed: int = 0
    """Changes that no hint announced."""
    unreadable: int = 0
    """Looks that found a record which can't be read."""
    reconciled: float | None = None
    reconcile_seconds: float = 0
    answered: float | None = None
    """When storage last answered."""


class Index:
    """The catalogue and all that keeps it true."""

    def __init__(
        self,
        disk: Disk,
        root: JobsRoot,
        *,
        max_age: float = 1.0,
        poll_interval: float = 1.0,
        watch: Watch | str = Watch.AUTO,
        reconcile_interval: float = RECONCILE_INTERVAL,
        on_unreadable: Callable[[str, BadRecord], None] | None = None,
    ) -> None:
        self.catalogue = Catalogue()
        self.figures = Figures()
        self.ready = asyncio.Event()
        """Set once the first index is complete."""
        self.mode = Watch(watch)
        """What was asked for; after the start never AUTO."""
        self._disk = disk
        self._root = root
        self._poll_interval = poll_interval
        self._reconcile_interval = reconcile_interval
        self._told = on_unreadable
        self._coverage = Coverage(self._missed)
        self._presence = Presence()
        self.freshness = Freshness(
            disk, root, self.catalogue, max_age, monotonic, self._unreadable,
            coverage=self._coverage, presence=self._presence,
        )  # fmt: skip
        self._watcher = Watcher(root.path, self)
        self._hints: dict[str, int] = {}
        """Jobs to look at, with how many times a new one has been already."""
        self._hinted = asyncio.Event()
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def storage_away(self) -> str | None:
        """Why the storage is held for away; None while it is there."""
        return self._presence.away

    @property
    def covered(self) -> bool:
        """Whether the watcher is healthy, so that its silence is believed."""
        return self._coverage.until > self._coverage.since

    @property
    def watcher_pid(self) -> int | None:
        """The id of the watcher's process, where there is one."""
        return self._watcher.pid

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Index]:
        """Keep the index for the length of the block."""
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    async def start(self) -> None:
        """Begin; returns at once, `ready` says when the first index is complete."""
        jobs: list[Callable[[], Awaitable[None]]] = [self._watch, self._reconcile, self._poll, self._probe]
        jobs += [self._answer_hints] * LOOKERS
        self._tasks = [asyncio.create_task(self._for_ever(job)) for job in jobs]

    async def stop(self) -> None:
        """End everything, within seconds, whatever hangs."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP)
        self._tasks.clear()

    def on_ready(self) -> None:
        """From now on the watcher tells; what happened before is found by looking at everything once."""
        self.figures.restarts = self._watcher.starts - 1
        self._coverage.begin(monotonic())
        self._due.set()

    def on_hints(self, job_ids: list[str]) -> None:
        """Look at these soon; until then nothing vouches for them."""
        now = monotonic()
        for job_id in filter(is_job_id, job_ids):
            self._coverage.hint(job_id)
            if (entry := self.catalogue.get(job_id)) is not None:
                entry.doubted = now
            self._hints[job_id] = 0
        self._hinted.set()

    def on_beat(self, moment: float) -> None:
        """Everything before `moment` has been told."""
        self._coverage.beat(moment)

    def on_lost(self) -> None:
        """Nobody watches: believe nothing that was not looked at."""
        if self._coverage.since < inf and not self._stopping:
            log.warning("watcher-lost")
        self.figures.restarts = self._watcher.starts - 1
        self._coverage.end()

    async def _for_ever(self, work: Callable[[], Awaitable[None]]) -> None:
        """Repeat one kind of work; a fault of ours in it is logged and does not end it."""
        while True:
            try:
                await work()
            except StorageUnavailable:
                await asyncio.sleep(self._poll_interval)
            except Exception:
                log.exception("index-fault", work=getattr(work, "__name__", "?"))
                await asyncio.sleep(self._poll_interval)

    async def _watch(self) -> None:
        if self.mode is Watch.AUTO:
            kind = await self._disk.metadata("*watch", partial(file_system, self._root.path))
            self.mode = Watch.EVENTS if is_local(kind) else Watch.POLL
            log.info("watch", mode=self.mode.value, file_system=kind)
        if self.mode is Watch.EVENTS:
            await self._watcher.run()
        await asyncio.Event().wait()

    async def _reconcile(self) -> None:
        """Compare everything, then wait for the next time: a timer, or a reason to."""
        self._due.clear()
        if self._presence.away is None:
            begun = monotonic()
            scan = await self._disk.metadata("*scan", partial(names_in, self._root.path))
            self.figures.ignored = scan.ignored
            await self._sweep("*scan", reconcile.wanted(scan.ids, self.catalogue.entries))
            self.figures.reconciled = monotonic()
            self.figures.reconcile_seconds = self.figures.reconciled - begun
            if not self.ready.is_set():
                log.info("indexed", jobs=len(self.catalogue), seconds=round(monotonic() - begun, 3))
            self.ready.set()
        pause = max(self._reconcile_interval, 20 * self.figures.reconcile_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._due.wait()

    async def _poll(self) -> None:
        await asyncio.sleep(self._poll_interval)
        if self._presence.away is None:
            entries = self.catalogue.entries
            await self._sweep(
                "*poll", [(job_id, entries[job_id].reading) for job_id in self.catalogue.unfinished()]
            )

    async def _probe(self) -> None:
        """Ask whether the root is there; its return is a reason to look at everything anew."""
        asked = monotonic()
        try:
            place, scan = await self._disk.metadata("*probe", self._look_at_root)
        except StorageUnavailable as silent:
            self._presence.doubt(silent.detail)
        else:
            self._judge(place, scan, asked)
        await asyncio.sleep(PROBE_INTERVAL)

    def _look_at_root(self) -> tuple[Place, Scan | None]:
        """Look at the root; with a whole listing where it is away, so that a return can be recognised."""
        place = place_of(self._root.path)
        return place, None if self._presence.away is None else names_in(self._root.path)

    def _judge(self, place: Place, scan: Scan | None, asked: float) -> None:
        self.figures.answered = asked
        reason = self._presence.judge(place, len(self.catalogue))
        if reason is not None and not self._recognised(scan):
            self._presence.doubt(reason)
        else:
            if self._presence.believe(place):
                self._watcher.restart()
                self._due.set()
            self._coverage.probed(asked)

    def _recognised(self, scan: Scan | None) -> bool:
        """Whether jobs that we know are there: the same storage, mounted again as another device."""
        return scan is not None and any(job_id in self.catalogue.entries for job_id in scan.ids)

    async def _answer_hints(self) -> None:
        while not self._hints:
            self._hinted.clear()
            await self._hinted.wait()
        job_id = next(iter(self._hints))
        looks = self._hints.pop(job_id)
        new = looks > 0 or job_id not in self.catalogue.entries
        await self.freshness.look(job_id)
        if new and looks < len(LOOK_AGAIN):
            asyncio.get_running_loop().call_later(LOOK_AGAIN[looks], self._queue, job_id, looks + 1)

    def _queue(self, job_id: str, looks: int) -> None:
        self._hints.setdefault(job_id, looks)
        self._hinted.set()

    async def _sweep(self, key: str, wanted: Sequence[Wanted]) -> None:
        for batch in reconcile.batches(wanted, BATCH):
            left: Sequence[Wanted] = batch
            while left:
                left = await self._hop(key, left)

    async def _hop(self, key: str, wanted: Sequence[Wanted]) -> Sequence[Wanted]:
        """Look at some; returns those that are left. A job that hangs is passed over."""
        sweep = Sweep(self._root, wanted)
        hangs = 0
        try:
            await self._disk.metadata(key, sweep)
        except StorageUnavailable:
            if not sweep.found and sweep.begun is None:
                raise
            hangs = 1
        finally:
            sweep.abandoned = True
        for found in tuple(sweep.found):
            self.freshness.accept(found, sweep.place)
        return sweep.rest()[hangs:]

    def _missed(self, job_id: str) -> None:
        self.figures.missed += 1
        log.warning("hint-missed", job=job_id)
        self._watcher.restart()

    def _unreadable(self, job_id: str, wrong: BadRecord) -> None:
        self.figures.unreadable += 1
        if self._told is not None:
            self._told(job_id, wrong)
