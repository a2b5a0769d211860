"""The index as it lives: hints, a poll of unfinished jobs, a full reconcile, each mending the one before.

Every look goes through Disk, in batches that give up their thread after a tenth of a second. No request ever
waits for any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from enum import StrEnum
from functools import partial
from time import monotonic
from typing import Final

import structlog

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.domain.job import BadRecord, Status
from jobsvc.index import measures, reconcile
from jobsvc.index.catalogue import Catalogue
from jobsvc.index.coverage import Coverage
from jobsvc.index.freshness import Freshness
from jobsvc.index.looks import WORKERS, Looks
from jobsvc.index.measures import Figures
from jobsvc.index.presence import Presence
from jobsvc.index.watcher import CHUNK, PULSE, Happened, Hint, Watcher
from jobsvc.index.watching import Watching
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.disk import Disk
from jobsvc.storage.layout import is_job_id
from jobsvc.storage.mounts import file_system, is_local, watch_limit
from jobsvc.storage.place import Place, names_in, place_of
from jobsvc.storage.reader import JobsRoot, Reading, Scan

log = structlog.get_logger("jobsvc.index")

PROBE_INTERVAL: Final = 0.5
RECONCILE_INTERVAL: Final = 60.0
LATE: Final = 1.5
"""Seconds between two beats after which the queue of events may have run over unseen."""
POLL_SHARE: Final = 0.06
"""The part of a processor that polling may take at most; past it, it comes less often."""
OUTPUT_PATIENCE: Final = 600.0
"""Seconds for which the output of a completed job is looked for again and again."""
STOP: Final = 3.0


class Watch(StrEnum):
    """How changes are learnt of."""

    AUTO = "auto"
    EVENTS = "events"
    POLL = "poll"


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
        metrics: Metrics | None = None,
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
        self._metrics = metrics
        self._coverage = Coverage(self._missed)
        self._presence = Presence()
        limit = int(watch_limit() * 0.9)
        # Where answers may be old only so long, the proofs that nothing changed come as often.
        self._probe_interval = max(min(PROBE_INTERVAL, max_age / 4), 0.05)
        pulse = max(min(PULSE, max_age / 4), 0.05)
        self._watcher = Watcher(root.path, self, pulse=pulse, chunk=min(CHUNK, limit // 16))
        self.watching = Watching(self.catalogue, self._watcher.watch, self._look_later, limit)
        self.freshness = Freshness(
            disk, root, self.catalogue, max_age, monotonic, self._unreadable,
            coverage=self._coverage, presence=self._presence, settle=self.watching.settle,
        )  # fmt: skip
        self._looks = Looks(disk, root, self.catalogue, self.freshness)
        self._poll_cost = 0.0
        self._outputs_awaited: dict[str, float] = {}
        self.catalogue.subscribe(self._changed)
        self._strangers: set[str] = set()
        """Names in the root that no job was found under, or not any more."""
        self._listed_since: float | None = None
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        if metrics is not None:
            measures.show(self, metrics)

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
        self._due.set()

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
            if not is_job_id(job_id):
                continue
            self._coverage.hint(job_id)
            if (entry := self.catalogue.get(job_id)) is not None:
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
        elif happened is not Happened.CHANGED:
            self.watching.vanished(job_id)

    def on_beat(self, moment: float) -> None:
        """Believe that all before `moment` was told, unless the watcher was held up for suspiciously long."""
        if self._coverage.beat(moment) > LATE:
            self._coverage.begin(monotonic())
            self._due.set()

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

    async def _reconcile(self) -> None:
        """Compare everything, then wait for the next time: a timer, or a reason to."""
        self._due.clear()
        if self._presence.away is None:
            begun = monotonic()
            scan = await self._disk.metadata("*scan", partial(names_in, self._root.path))
            self._listed(scan)
            await self._looks.round("*scan", reconcile.to_look_at(scan.ids, self.catalogue.entries))
            self._reconciled(begun, scan)
        pause = max(self._reconcile_interval, 20 * self.figures.reconcile_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._due.wait()

    def _listed(self, scan: Scan) -> None:
        """Take in a listing; a name that nobody announced since the last one is a missed hint."""
        self.figures.ignored = scan.ignored
        self.watching.listed(scan.ids)
        if self._listed_since == self._coverage.since:
            now, entries = monotonic(), self.catalogue.entries
            for job_id in scan.ids:
                if not (job_id in entries or job_id in self._strangers or self.watching.knows(job_id)):
                    self._coverage.surprise(job_id, now)

    def _reconciled(self, begun: float, scan: Scan) -> None:
        now = monotonic()
        self.figures.reconciled, self.figures.reconcile_seconds = now, now - begun
        if self._metrics is not None:
            self._metrics.reconcile_duration.observe(now - begun)
        self._strangers = {job_id for job_id in scan.ids if job_id not in self.catalogue.entries}
        self.watching.expect(self._strangers)
        if begun >= self._coverage.since:
            self._listed_since = self._coverage.since
        if not self.ready.is_set():
            log.info("indexed", jobs=len(self.catalogue), seconds=round(now - begun, 3))
            self.ready.set()

    async def _poll(self) -> None:
        await asyncio.sleep(max(self._poll_interval, self._poll_cost / POLL_SHARE))
        self._poll_cost = 0
        if self._presence.away is None:
            ids = [*self.catalogue.unfinished(), *self._still_awaited()]
            self._poll_cost = await self._looks.round("*poll", ids)

    def _still_awaited(self) -> list[str]:
        now = monotonic()
        for job_id in [job_id for job_id, until in self._outputs_awaited.items() if until < now]:
            del self._outputs_awaited[job_id]
        return list(self._outputs_awaited)

    async def _probe(self) -> None:
        """Ask whether the root is there; its return is a reason to look at everything anew."""
        asked = monotonic()
        try:
            place, scan = await self._disk.metadata("*probe", self._look_at_root)
        except StorageUnavailable as silent:
            self._presence.doubt(silent.detail)
        else:
            self._judge(place, scan, asked)
        await asyncio.sleep(self._probe_interval)

    def _look_at_root(self) -> tuple[Place, Scan | None]:
        """Look at the root; with a whole listing where it is away, so that a return can be recognised."""
        place = place_of(self._root.path)
        return place, None if self._presence.away is None else names_in(self._root.path)

    def _judge(self, place: Place, scan: Scan | None, asked: float) -> None:
        self.figures.answered = asked
        if self._metrics is not None:
            self._metrics.storage_answered()
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

    def _look_later(self, job_ids: Iterable[str]) -> None:
        self._looks.later(job_ids)

    def _changed(self, job_id: str, _before: Reading | None, after: Reading | None) -> None:
        """Note a completed job without its output, to poll it for a while: it often comes afterwards."""
        if after is not None and after.job.status is Status.COMPLETED and not after.output:
            self._outputs_awaited[job_id] = monotonic() + OUTPUT_PATIENCE
        else:
            self._outputs_awaited.pop(job_id, None)
        if after is None:
            self._strangers.add(job_id)

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
