"""Check regularly whether the root is available. No job is removed while its state is implausible."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.root_check import RootCheck
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.index.scan.root_names import LISTING_TIMEOUT_S
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import RootStat, list_job_ids, stat_root

ROOT_CHECK_INTERVAL_S: Final = 0.5


class RootMonitor:
    """Applies the state of the root to RootCheck and to the watch coverage. Event loop only."""

    def __init__(
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        catalogue: Catalogue,
        *,
        root_check: RootCheck,
        coverage: WatchCoverage,
        metrics: Metrics,
        interval: float,
        on_return: Callable[[], None],
    ) -> None:
        """`on_return` is called when storage is available again, or the root is another directory.

        `interval` is in seconds.
        """
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._root_check = root_check
        self._coverage = coverage
        self._metrics = metrics
        self._interval = interval
        self._on_return = on_return

    async def check_root(self) -> None:
        """Check once whether the root is available, then wait for the interval."""
        started_at = monotonic()
        try:
            root_stat = await self._disk.run_metadata("*root-check", partial(stat_root, self._root.path))
            self._apply(root_stat, await self._unavailable_reason(root_stat), started_at)
        except StorageUnavailable as exc:
            self._root_check.mark_unavailable(exc.reason or exc.detail, started_at)
        await asyncio.sleep(self._interval)

    def _apply(self, root_stat: RootStat, reason: str | None, started_at: float) -> None:
        self._metrics.note_storage_response()
        if reason is not None:
            self._root_check.mark_unavailable(reason, started_at)
        else:
            if self._root_check.accept(root_stat):
                self._on_return()
            self._coverage.note_root_ok(started_at)

    async def _unavailable_reason(self, root_stat: RootStat) -> str | None:
        """Return why this state of the root is implausible; None if it is plausible.

        If storage was unavailable and the root now contains a known job, it is the same storage mounted
        again and is accepted. Raises StorageUnavailable.
        """
        entries = self._catalogue.entries
        reason = self._root_check.problem(root_stat, len(entries))
        if reason is None or self._root_check.unavailable_reason is None:
            return reason
        scan = await self._disk.run_metadata(
            "*root-check", partial(list_job_ids, self._root.path), LISTING_TIMEOUT_S
        )
        return None if any(job_id in entries for job_id in scan.ids) else reason
