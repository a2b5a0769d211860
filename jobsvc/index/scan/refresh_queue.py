"""Queue jobs to be read from disk in the background: urgent ones and others. Event loop only; no I/O."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

QUEUE_READERS: Final = 8
"""Tasks that take batches from the queue."""
MAX_QUEUE_BATCH_JOBS: Final = 100
"""Maximum jobs of a batch, for example in a burst of events."""


class RefreshQueue:
    """Two queues of job ids, and the ids that are being read now."""

    def __init__(self) -> None:
        self.is_local = False
        """Whether the file system is local, so that stat results prove that a job is unchanged."""
        self._urgent: OrderedDict[str, None] = OrderedDict()
        self._others: OrderedDict[str, None] = OrderedDict()
        self._in_progress: set[str] = set()
        self._only_batch: list[str] | None = None
        """The one batch of `refresh_later` in progress on a local file system; None if there is none."""
        self._bulk_reads = 0
        self._wake = asyncio.Event()

    @property
    def is_backlogged(self) -> bool:
        """Whether jobs of `refresh_later` are queued."""
        return bool(self._others)

    def refresh_now(self, job_ids: Iterable[str]) -> None:
        """Queue these jobs to be read first: there was an event for them."""
        self._urgent.update(dict.fromkeys(job_ids))
        self._wake.set()

    def refresh_later(self, job_ids: Iterable[str]) -> None:
        """Queue these jobs to be read when no urgent job waits and no bulk read is in progress.

        On a local file system one task reads them: more would take CPU from requests.
        """
        self._others.update(dict.fromkeys(job_ids))
        self._wake.set()

    @contextmanager
    def bulk_read(self) -> Iterator[None]:
        """Hand out urgent jobs only while the `with` block runs."""
        self._bulk_reads += 1
        try:
            yield
        finally:
            self._bulk_reads -= 1
            self._wake.set()

    def take(self) -> list[str]:
        """Take the next batch of jobs; [] if there is none. The caller passes it to `done` afterwards.

        It has at most 1/QUEUE_READERS of a queue, so that no reader is idle, and at most MAX_QUEUE_BATCH_JOBS
        jobs.
        """
        urgent_only = self._bulk_reads > 0 or self._only_batch is not None
        for queue in (self._urgent,) if urgent_only else (self._urgent, self._others):
            size = min(max(1, len(queue) // QUEUE_READERS), MAX_QUEUE_BATCH_JOBS)
            batch = list(islice((job_id for job_id in queue if job_id not in self._in_progress), size))
            for job_id in batch:
                del queue[job_id]
            if batch:
                self._in_progress.update(batch)
                if queue is self._others and self.is_local:
                    self._only_batch = batch
                return batch
        self._wake.clear()
        return []

    def done(self, batch: list[str]) -> None:
        """Record that a batch was read."""
        self._in_progress.difference_update(batch)
        if self._only_batch is batch:
            self._only_batch = None

    async def wait(self) -> None:
        """Wait for jobs to be queued, or for the end of a bulk read, after `take` returned []."""
        await self._wake.wait()
