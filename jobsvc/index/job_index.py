"""The index as it lives: it joins the watcher, the rounds and the looks, and keeps them going.

Every look goes through Disk, in batches that give up their thread after a tenth of a second. No request ever
waits for any of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from enum import StrEnum
from functools import partial
from time import monotonic
from typing import Final

import structlog

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.domain.job import Status
from jobsvc.domain.status_record import BadRecord
from jobsvc.index import index_metrics
from jobsvc.index.catalogue.entries import Catalogue, Entry
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.catalogue.index_stats import Figures
from jobsvc.index.catalogue.root_check import Presence
from jobsvc.index.catalogue.watch_coverage import Coverage
from jobsvc.index.queries.listing import Listing
from jobsvc.index.queries.log_tail_cache import Tails
from jobsvc.index.scan.mount_watch import MountWatch
from jobsvc.index.scan.periodic import PROBE_INTERVAL, RECONCILE_INTERVAL, Parts, Rounds
from jobsvc.index.scan.refresh_queue import WORKERS, Looks
from jobsvc.index.scan.root_names import RootNames
from jobsvc.index.watch.registry import Watching
from jobsvc.index.watch.supervisor import CHUNK, PULSE, Happened, Hint, Watcher
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import Disk
from jobsvc.storage.filesystem.mounts import file_system, is_local, watch_limit
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import Reading
from jobsvc.storage.layout import is_job_id

log = structlog.get_logger("jobsvc.index")

LATE: Final = 1.0
"""Seconds between two beats after which the queue of events may have run over unseen."""
STOP: Final = 3.0


class Watch(StrEnum):
    """How changes are learnt of."""

    AUTO = "auto"
    EVENTS = "events"
    POLL = "poll"


class Index:
    """The catalogue and all that keeps it true."""

    def __init__(  # noqa: PLR0913 - by name, and made in one place
        self,
        disk: Disk,
        root: JobsRoot,
        *,
        max_age: float = 1.0,
        poll_interval: float = 1.0,
        watch: Watch | str = Watch.AUTO,
        reconcile_interval: float = RECONCILE_INTERVAL,
        on_unreadable: Callable[[str, BadRecord], None] | None = None,
        wary: Callable[[Reading], bool] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.catalogue = Catalogue()
        self.figures = Figures()
        self.mode = Watch(watch)
        """What was asked for; after the start never AUTO."""
        self._disk = disk
        self._root = root
        self._poll_interval = poll_interval
        self._told = on_unreadable
        self._metrics = metrics
        self._coverage = Coverage(self._missed)
        self._presence = Presence()
        self.listing = Listing(self.catalogue, self._coverage, self.figures)
        limit = int(watch_limit() * 0.9)
        pulse = max(min(PULSE, max_age / 4), 0.05)
        chunk = min(CHUNK, limit // 32)
        self._watcher = Watcher(root.path, self, pulse=pulse, chunk=chunk)
        self.watching = Watching(
            self.catalogue, self._watcher.watch, self._look, limit,
            batch=chunk, lagging=lambda: self._looks.lagging,
        )  # fmt: skip
        self.watching.held = True
        self.freshness = Freshness(
            disk, root, self.catalogue, max_age, monotonic, self._unreadable,
            coverage=self._coverage, presence=self._presence, settle=self.watching.settle, wary=wary,
            recheck=lambda job_id: self._looks.hinted([job_id]),
        )  # fmt: skip
        self.tails = Tails(disk, root, self.freshness)
        self._looks = Looks(
            disk, root, self.catalogue, self.freshness, self.watching.go_on,
            on_scout_lost=None if metrics is None else metrics.scouts_lost.inc,
        )  # fmt: skip
        parts = Parts(
            disk, root, self.catalogue, self._looks, self._coverage, self._presence,
            self.watching, self.figures, metrics,
        )  # fmt: skip
        self._names = RootNames(
            disk, root, self.catalogue,
            freshness=self.freshness, looks=self._looks, figures=self.figures,
            poll_interval=poll_interval, is_needed=self._is_listing_needed,
        )  # fmt: skip
        self._rounds = Rounds(
            parts,
            poll_interval=poll_interval,
            reconcile_interval=reconcile_interval,
            # Where answers may be old only so long, the proofs that nothing changed come as often.
            probe_interval=max(min(PROBE_INTERVAL, max_age / 4), 0.05),
            to_poll=self._names.to_poll,
            is_watched=self._is_watched,
            on_return=self._watcher.restart,
        )
        self._mounts = MountWatch(disk, root, self.catalogue, self.on_hints)
        self.ready = self._rounds.ready
        """Set once the first index is complete."""
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        if metrics is not None:
            index_metrics.show(self, metrics)

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
        rounds = self._rounds
        jobs: list[Callable[[], Awaitable[None]]] = [
            self._watch, rounds.reconcile, rounds.poll, rounds.probe, self._names.check, self._mounts.run,
        ]  # fmt: skip
        jobs += [self._looks.work] * WORKERS
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
        self._coverage.begin(monotonic())
        self.watching.begin()
        self._rounds.watched()

    def on_armed(self, number: int) -> None:
        """Look at what is watched from now on once more: from that look on its watch vouches for it."""
        self.watching.armed(number)

    def on_refused(self, number: int) -> None:
        """Do with what is watched."""
        self.watching.refused(number)

    def on_hints(self, hints: list[Hint]) -> None:
        """Look at these soon; until then nothing vouches for them."""
        now = monotonic()
        for happened, rest in hints:
            job_id, _, name = rest.partition("/")
            entry = self.catalogue.get(job_id)
            if not is_job_id(job_id) or (happened is Happened.GROWN and not _shows_its_log(entry)):
                continue
            self._coverage.hint(job_id)
            if entry is not None:
                entry.doubted = max(entry.doubted, now)
            self._take_note(happened, job_id, name)
            self._looks.hinted([job_id])

    def _take_note(self, happened: Happened, job_id: str, name: str) -> None:
        if happened is Happened.NEW:
            self.watching.appeared(job_id)
        elif happened is Happened.MOVED:
            self.watching.moved(job_id, name)
        elif happened is Happened.BLIND:
            self.watching.blinded(job_id)
        elif happened not in {Happened.CHANGED, Happened.GROWN}:
            self.watching.vanished(job_id)

    def on_beat(self, moment: float) -> None:
        """Believe that all before `moment` was told, unless the watcher was held up for suspiciously long."""
        if self._coverage.beat(moment) > LATE:
            self._coverage.begin(monotonic())
            self._rounds.reconcile_soon()

    def on_unknown_line(self) -> None:
        """Count a line of the watcher that is not part of its protocol."""
        if self._metrics is not None:
            self._metrics.watcher_unknown_lines.inc()

    def on_lost(self) -> None:
        """Nobody watches: believe nothing that was not looked at."""
        self._coverage.end()
        self.watching.end()
        if not self._stopping:
            self.figures.restarts += 1
            if self._metrics is not None:
                self._metrics.watcher_restarts.inc()

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
        kind = await self._disk.metadata("*watch", partial(file_system, self._root.path))
        self._looks.quick = is_local(kind)
        if self.mode is Watch.AUTO:
            self.mode = Watch.EVENTS if is_local(kind) else Watch.POLL
        log.info("watch", mode=self.mode.value, file_system=kind)
        if self.mode is Watch.EVENTS:
            await self._watcher.run()
        await asyncio.Event().wait()

    def _is_watched(self) -> bool:
        """Whether a watcher is to tell of changes, and sees all there are: only those made on this host."""
        return self.mode is Watch.EVENTS and self._looks.quick

    def _is_listing_needed(self) -> bool:
        """Whether new and removed jobs are found only by listing the root."""
        if self.storage_away is not None or not self.ready.is_set():
            return False
        return not (self._is_watched() and self.covered)

    def _look(self, job_ids: Iterable[str], *, urgent: bool) -> None:
        if urgent:
            self._looks.hinted(job_ids)
        else:
            self._looks.later(job_ids)

    def _missed(self, job_id: str) -> None:
        """Begin the watcher anew: it kept something from us, and may be keeping more."""
        log.warning("hint-missed", job=job_id)
        self.figures.missed += 1
        if self._metrics is not None:
            self._metrics.watcher_missed_hints.inc()
        self._watcher.restart()

    def _unreadable(self, job_id: str, wrong: BadRecord) -> None:
        self.figures.unreadable += 1
        if self._told is not None:
            self._told(job_id, wrong)


def _shows_its_log(entry: Entry | None) -> bool:
    """Whether the log is part of the answer: of a failed job's alone, though those under way write theirs."""
    return entry is not None and entry.reading.job.status is Status.FAILED
