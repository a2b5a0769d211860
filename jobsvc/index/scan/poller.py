"""Poll the jobs that can change: unfinished ones, and completed ones whose output is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from jobsvc.domain.job import Status
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.root_check import RootCheck
from jobsvc.index.scan.refresher import Refresher
from jobsvc.storage.jobs.snapshot import JobSnapshot

POLL_CPU_SHARE: Final = 0.04
"""Maximum share of one CPU for polling; lengthens the poll interval."""
AWAIT_OUTPUT_S: Final = 600.0
"""Seconds for which a completed job that lacks an output is polled."""


class Poller:
    """Decides which jobs to poll, and when. Event loop only."""

    def __init__(
        self,
        catalogue: Catalogue,
        root_check: RootCheck,
        refresher: Refresher,
        *,
        interval: float,
        names_to_poll: Callable[[], list[str]],
    ) -> None:
        """`names_to_poll` returns names in the root that may become jobs. `interval` is in seconds."""
        self._catalogue = catalogue
        self._root_check = root_check
        self._refresher = refresher
        self._interval = interval
        self._names_to_poll = names_to_poll
        self._cpu_seconds = 0.0
        """CPU time of the last poll."""
        self._outputs_awaited: dict[str, float] = {}
        """Completed jobs that lack an output, and until when they are polled (monotonic seconds)."""
        catalogue.subscribe(self._on_change)

    async def poll(self) -> None:
        """Wait, then read the jobs that can change.

        The wait is the poll interval, or longer so that polling takes at most POLL_CPU_SHARE.
        """
        await asyncio.sleep(max(self._interval, self._cpu_seconds / POLL_CPU_SHARE))
        self._cpu_seconds = 0
        if self._root_check.unavailable_reason is None:
            job_ids = [*self._catalogue.unfinished(), *self._awaiting_output(), *self._names_to_poll()]
            self._cpu_seconds = await self._refresher.refresh_all("*poll", job_ids)

    def _awaiting_output(self) -> list[str]:
        now = monotonic()
        for job_id in [job_id for job_id, until in self._outputs_awaited.items() if until < now]:
            del self._outputs_awaited[job_id]
        return list(self._outputs_awaited)

    def _on_change(self, job_id: str, _before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        """Poll a completed job that lacks an output for AWAIT_OUTPUT_S: it often appears later."""
        if after is not None and after.job.status is Status.COMPLETED and after.lacks_output:
            self._outputs_awaited[job_id] = monotonic() + AWAIT_OUTPUT_S
        else:
            self._outputs_awaited.pop(job_id, None)
