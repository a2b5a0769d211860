"""Render jobs for event streams and long polls.

The JSON is the same as that of `GET /api/jobs/{id}`, rendered once for all clients that are notified of the
same change. Its relative references are adapted to the URL of the stream.
"""

from __future__ import annotations

import asyncio

from jobsvc.domain.job import Status
from jobsvc.index.catalogue.freshness import CachedJob
from jobsvc.index.queries.log_tail_cache import LogTailCache
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.jobs.representation import RenderedJob, RepresentationCache


class PushRenderer:
    """Render jobs through the cache of representations."""

    def __init__(self, tails: LogTailCache, representations: RepresentationCache) -> None:
        self._tails = tails
        self._representations = representations
        self._under_way: dict[tuple[str, FileVersion], asyncio.Task[RenderedJob]] = {}

    async def render(self, reading: JobSnapshot) -> RenderedJob:
        """Render a snapshot; for a failed job with its log tail, if storage responds."""
        if reading.job.status is not Status.FAILED:
            return self._representations.get(reading, None)
        key = (reading.job.id, reading.record_version)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._with_its_log(reading))
            task.add_done_callback(lambda _done: self._under_way.pop(key))
        return await asyncio.shield(task)

    async def _with_its_log(self, reading: JobSnapshot) -> RenderedJob:
        _, logs = await self._tails.with_tail(CachedJob(reading, age=0.0, stale=False))
        return self._representations.get(reading, logs)
