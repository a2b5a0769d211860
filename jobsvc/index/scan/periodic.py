"""What comes round: a full reconcile, a poll of unfinished jobs, a probe of the root.

None of them believes an absence while the root itself can't be believed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from time import monotonic, thread_time
from typing import Final

import structlog

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.domain.job import Status
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.index_stats import Figures
from jobsvc.index.catalogue.root_check import Presence
from jobsvc.index.catalogue.watch_coverage import Coverage
from jobsvc.index.scan import reconcile
from jobsvc.index.scan.reconcile import Compared
from jobsvc.index.scan.refresh_queue import Looks
from jobsvc.index.watch.registry import Watching
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import Disk
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import Place, RootScan, names_in, place_of
from jobsvc.storage.jobs.snapshot import Reading

log = structlog.get_logger("jobsvc.index")

PROBE_INTERVAL: Final = 0.5
RECONCILE_INTERVAL: Final = 60.0
RECONCILE_SHARE: Final = 0.05
"""The part of all time that reconciling may take; past it, it comes less often."""
RECONCILE_RARELY: Final = 600.0
LISTING: Final = 60.0
"""Seconds that a listing of the root has: a million names take some, and more over a network."""
POLL_SHARE: Final = 0.04
"""The part of a processor that polling may take at most; past it, it comes less often."""
UNWATCHED_CPU_SHARE: Final = 0.02
"""The part of a processor for which everything is compared again where no watcher tells of changes."""
UNWATCHED_TIME_SHARE: Final = 0.2
"""Likewise, the part of all time: most of it is spent waiting for network storage."""
OUTPUT_PATIENCE: Final = 600.0
"""Seconds for which the output of a completed job is looked for again and again."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an index is made of."""

    disk: Disk
    root: JobsRoot
    catalogue: Catalogue
    looks: Looks
    coverage: Coverage
    presence: Presence
    watching: Watching
    figures: Figures
    metrics: Metrics | None


class Rounds:
    """The work that comes round; each method does its part once and then waits for the next time."""

    def __init__(
        self,
        parts: Parts,
        *,
        poll_interval: float,
        reconcile_interval: float,
        probe_interval: float,
        to_poll: Callable[[], list[str]],
        is_watched: Callable[[], bool],
        on_return: Callable[[], None],
    ) -> None:
        """`to_poll` gives names to poll beside unfinished jobs.

        `is_watched` says whether a watcher is to tell of changes on this storage.
        """
        self._parts = parts
        self._to_poll = to_poll
        self._is_watched = is_watched
        self._poll_interval = poll_interval
        self._reconcile_interval = reconcile_interval
        self._probe_interval = probe_interval
        self._on_return = on_return
        self.ready = asyncio.Event()
        """Set once the first index is complete."""
        self._due = asyncio.Event()
        self._names_alone = False
        """Whether only what came or went is to be looked at next time."""
        self._poll_cost = 0.0
        self._reconcile_cpu_seconds = 0.0
        self._outputs_awaited: dict[str, float] = {}
        self._strangers: set[str] = set()
        """Names in the root that no job was found under, or not any more."""
        self._listed_since: float | None = None
        parts.catalogue.subscribe(self._changed)

    def reconcile_soon(self) -> None:
        """Have everything compared at once."""
        self._names_alone = False
        self._due.set()

    def watched(self) -> None:
        """Have everything compared at once, since only now the root is watched.

        During the first index, names alone: each job is looked at once more when a watch is upon it.
        """
        self._names_alone = not self.ready.is_set()
        self._due.set()

    async def reconcile(self) -> None:
        """Compare everything, then wait for the next time: a timer, or a reason to."""
        self._due.clear()
        names_alone, self._names_alone = self._names_alone, False
        if self._parts.presence.away is None:
            # By itself, for a listing of 100,000 names to be dropped before the wait.
            await self._reconcile_once(names_alone=names_alone)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._reconcile_pause()):
                await self._due.wait()

    def _reconcile_pause(self) -> float:
        """Return the seconds until everything is compared again.

        Without a watcher only that finds what changed in finished jobs: a few jobs are compared more often.
        """
        seconds = self._parts.figures.reconcile_seconds
        rarely = seconds / RECONCILE_SHARE
        if not self._is_watched():
            by_cpu = self._reconcile_cpu_seconds / UNWATCHED_CPU_SHARE
            often = max(seconds / UNWATCHED_TIME_SHARE, by_cpu, self._poll_interval)
            if often < self._reconcile_interval:
                return often
            rarely = max(rarely, by_cpu)
        return max(self._reconcile_interval, min(rarely, RECONCILE_RARELY))

    async def _reconcile_once(self, *, names_alone: bool) -> None:
        begun = monotonic()
        compare = partial(self._compare, names_alone=names_alone)
        scan, found, cpu_seconds = await self._parts.disk.metadata("*scan", compare, LISTING)
        self._listed(scan, found)
        known = [*found.lacking, *found.rest]
        self._reconcile_cpu_seconds = cpu_seconds + await self._parts.looks.round("*scan", known, found.new)
        if not self._is_watched():
            await self._parts.disk.metadata("*scan", partial(self._note_inodes, scan), LISTING)
        self._reconciled(begun, found)

    def _compare(self, *, names_alone: bool) -> tuple[RootScan, Compared, float]:
        before = thread_time()
        scan = names_in(self._parts.root.path)
        found = reconcile.compare(scan.ids, self._parts.catalogue.entries, names_alone=names_alone)
        return scan, found, thread_time() - before

    def _note_inodes(self, scan: RootScan) -> None:
        reconcile.note_inodes(scan, self._parts.catalogue.entries)

    def _listed(self, scan: RootScan, found: Compared) -> None:
        """Take in a listing; a name that nobody announced since the last one is a missed hint."""
        self._parts.figures.ignored = scan.ignored
        self._parts.watching.listed(found.names)
        self._parts.catalogue.listed(found.names)
        if self._listed_since == self._parts.coverage.since:
            now, entries = monotonic(), self._parts.catalogue.entries
            for job_id in found.new:
                if not (job_id in entries or job_id in self._strangers or self._parts.watching.knows(job_id)):
                    self._parts.coverage.surprise(job_id, now)

    def _reconciled(self, begun: float, found: Compared) -> None:
        now, entries = monotonic(), self._parts.catalogue.entries
        self._parts.figures.reconciled, self._parts.figures.reconcile_seconds = now, now - begun
        if self._parts.metrics is not None:
            self._parts.metrics.reconcile_duration.observe(now - begun)
        strangers = chain(found.new, self._strangers & found.names)
        self._strangers = {job_id for job_id in strangers if job_id not in entries}
        self._parts.watching.expect(self._strangers)
        if begun >= self._parts.coverage.since:
            self._listed_since = self._parts.coverage.since
        if not self.ready.is_set():
            log.info("indexed", jobs=len(self._parts.catalogue), seconds=round(now - begun, 3))
            self.ready.set()
        if self._parts.watching.held and not self._names_alone:  # to compare names first takes less time
            self._parts.watching.catch_up()

    async def poll(self) -> None:
        """Look at what may change: the next time is due when it has cost no more than its share."""
        await asyncio.sleep(max(self._poll_interval, self._poll_cost / POLL_SHARE))
        self._poll_cost = 0
        if self._parts.presence.away is None:
            ids = [*self._parts.catalogue.unfinished(), *self._still_awaited(), *self._to_poll()]
            self._poll_cost = await self._parts.looks.round("*poll", ids)

    def _still_awaited(self) -> list[str]:
        now = monotonic()
        for job_id in [job_id for job_id, until in self._outputs_awaited.items() if until < now]:
            del self._outputs_awaited[job_id]
        return list(self._outputs_awaited)

    async def probe(self) -> None:
        """Ask whether the root is there; its return is a reason to look at everything anew."""
        asked = monotonic()
        try:
            place = await self._parts.disk.metadata("*probe", partial(place_of, self._parts.root.path))
            self._judge(place, await self._away(place), asked)
        except StorageUnavailable as silent:
            self._parts.presence.doubt(silent.reason or silent.detail, asked)
        await asyncio.sleep(self._probe_interval)

    def _judge(self, place: Place, reason: str | None, asked: float) -> None:
        self._parts.figures.answered = asked
        if self._parts.metrics is not None:
            self._parts.metrics.storage_answered()
        if reason is not None:
            self._parts.presence.doubt(reason, asked)
        else:
            if self._parts.presence.believe(place):
                self._on_return()
                self.reconcile_soon()
            self._parts.coverage.probed(asked)

    async def _away(self, place: Place) -> str | None:
        """Say why a root that looks so can't be believed; None where it can.

        One that is away is believed where it has jobs that we know: the same storage, mounted again.
        """
        presence, entries = self._parts.presence, self._parts.catalogue.entries
        reason = presence.judge(place, len(entries))
        if reason is None or presence.away is None:
            return reason
        scan = await self._parts.disk.metadata("*probe", partial(names_in, self._parts.root.path), LISTING)
        return None if any(job_id in entries for job_id in scan.ids) else reason

    def _changed(self, job_id: str, _before: Reading | None, after: Reading | None) -> None:
        """Note a completed job without its output, to poll it for a while: it often comes afterwards."""
        if after is not None and after.job.status is Status.COMPLETED and not after.made:
            self._outputs_awaited[job_id] = monotonic() + OUTPUT_PATIENCE
        else:
            self._outputs_awaited.pop(job_id, None)
        if after is None:
            self._strangers.add(job_id)
