"""Apply what the watcher process reports to the coverage, the watch registry and the refresh queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from time import monotonic
from typing import Final, TypeAlias

from jobsvc.domain.job import Status
from jobsvc.index.catalogue.entries import Catalogue, Entry
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.index.watch.registry import WatchRegistry
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.layout import is_job_id

LATE_HEARTBEAT_S: Final = 1.0
"""Seconds between two heartbeats above which the event queue may have overflowed unnoticed."""


class EventKind(Enum):
    """Kind of an event; the values are the protocol's words."""

    CHANGED = "changed"
    GROWN = "log"
    MOVED = "moved"
    NEW = "new"
    GONE = "gone"
    UNWATCHED = "unwatched"
    UNWATCHABLE = "unwatchable"


EVENT_KINDS: Final = {kind.value: kind for kind in EventKind}

WatchEvent: TypeAlias = tuple[EventKind, str]
"""Kind of event and job id; for MOVED the job id, a slash and the name that was added or removed."""


class WatchEvents:
    """One method for each kind of line, called in the order of the lines. Event loop only."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        coverage: WatchCoverage,
        registry: WatchRegistry,
        metrics: Metrics,
        refresh_now: Callable[[Iterable[str]], None],
        reconcile_names: Callable[[], None],
        reconcile_soon: Callable[[], None],
    ) -> None:
        """`refresh_now` queues jobs to be read; `reconcile_soon` starts a reconcile at once.

        `reconcile_names` does so too; it may compare names only, during the first index.
        """
        self._catalogue = catalogue
        self._coverage = coverage
        self._registry = registry
        self._metrics = metrics
        self._refresh_now = refresh_now
        self._reconcile_names = reconcile_names
        self._reconcile_soon = reconcile_soon
        self.stopping = False
        """Whether the service is stopping, so that the end of the watcher process is not a restart."""

    def on_ready(self) -> None:
        """Start coverage: the root is watched. Reconcile once to find what changed before."""
        self._coverage.begin(monotonic())
        self._registry.start()
        self._reconcile_names()

    def on_watched(self, number: int) -> None:
        """Have the jobs of batch `number` read again: they are covered from that read on."""
        self._registry.batch_watched(number)

    def on_limit_reached(self, number: int) -> None:
        """Limit the watches to those in use: the system did not allow those of batch `number`."""
        self._registry.limit_was_reached(number)

    def on_events(self, events: list[WatchEvent]) -> None:
        """Queue the jobs of these events for an immediate refresh; until it is done they are not covered."""
        now = monotonic()
        for kind, subject in events:
            job_id, _, name = subject.partition("/")
            entry = self._catalogue.get(job_id)
            if not is_job_id(job_id) or (kind is EventKind.GROWN and not _shows_its_log(entry)):
                continue
            self._coverage.note_event(job_id)
            if entry is not None:
                entry.last_event_at = max(entry.last_event_at, now)
            self._update_registry(kind, job_id, name)
            self._refresh_now([job_id])

    def _update_registry(self, kind: EventKind, job_id: str, name: str) -> None:
        if kind is EventKind.NEW:
            self._registry.job_added(job_id)
        elif kind is EventKind.MOVED:
            self._registry.moved(job_id, name)
        elif kind is EventKind.UNWATCHABLE:
            self._registry.unwatchable(job_id)
        elif kind not in {EventKind.CHANGED, EventKind.GROWN}:
            self._registry.job_removed(job_id)

    def on_heartbeat(self, sent_at: float) -> None:
        """Extend coverage to `sent_at` (monotonic seconds): all earlier events were delivered.

        If the previous heartbeat was more than LATE_HEARTBEAT_S earlier, restart coverage and reconcile.
        """
        if self._coverage.note_heartbeat(sent_at) > LATE_HEARTBEAT_S:
            self._coverage.begin(monotonic())
            self._reconcile_soon()

    def on_unknown_line(self) -> None:
        """Count a line from the watcher process that is not part of its protocol."""
        self._metrics.watcher_unknown_lines.inc()

    def on_lost(self) -> None:
        """End coverage: the watcher process is gone, so only what is read from disk is current."""
        self._coverage.end()
        self._registry.stop()
        if not self.stopping:
            self._metrics.watcher_restarts.inc()


def _shows_its_log(entry: Entry | None) -> bool:
    """Return whether the job's log is part of its representation: only if the job has failed.

    Rendering jobs write logs too, but their events are ignored.
    """
    return entry is not None and entry.snapshot.job.status is Status.FAILED
