"""Cache the ends of failed jobs' logs. They are read on request.

A cached tail is used for as long as a response is allowed to be old. A log follows the rules of its job: a
tail that was read under a healthy watch is valid until an event. While storage does not respond, the last
known tail is used. The size is bounded, in characters; the least recently used tail is evicted first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.domain.job import Job
from jobsvc.index.catalogue.freshness import CachedJob, Freshness
from jobsvc.index.catalogue.missing_files import MissingFiles
from jobsvc.index.catalogue.shared_reads import KNOWN_DEADLINE_S
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.layout import DEFAULT_LOG

MAX_CHARACTERS: Final = 32 << 20
"""Maximum number of cached characters, of all logs together."""
_OVERHEAD: Final = 512
"""Characters counted in addition for each log, so that the number of empty ones is bounded too."""


class _CachedTail(NamedTuple):
    """The end of one log."""

    job: Job
    """The job it belongs to; a newer record can name another log."""
    text: str | None
    """None if there was no log."""
    read_at: float
    """When the read began, in monotonic seconds."""
    missing: bool = False
    """Whether that read found no log, so that the text is the one read before."""

    @property
    def weight(self) -> int:
        """Its share of the cap, in characters."""
        return len(self.text or "") + _OVERHEAD


class LogTailCache:
    """Read and cache log tails. Event loop only."""

    def __init__(
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        freshness: Freshness,
        *,
        clock: Callable[[], float] = monotonic,
        cap: int = MAX_CHARACTERS,
    ) -> None:
        self._disk = disk
        self._root = root
        self._freshness = freshness
        self._clock = clock
        self._cap = cap
        self._tails: OrderedDict[str, _CachedTail] = OrderedDict()
        self._weight = 0
        self._missing = MissingFiles()

    async def with_tail(self, cached_job: CachedJob, *, force: bool = False) -> tuple[CachedJob, str | None]:
        """Return the cached job with the age of job and log, and the end of the log (None: no log).

        `force` skips the cache. If storage does not respond, the last known tail is returned and the job is
        marked as stale.
        """
        if not force and (result := self.cached(cached_job)) is not None:
            return result
        tail = self._cached_tail(cached_job)
        try:
            return self._with_tail(cached_job, await self._read(cached_job.snapshot.job))
        except StorageUnavailable:
            return cached_job._replace(stale=True), tail and tail.text

    def cached(self, cached_job: CachedJob) -> tuple[CachedJob, str | None] | None:
        """Return the same from the cache; None if the log has to be read."""
        tail = self._cached_tail(cached_job)
        if tail is None or not self._is_fresh(tail):
            return None
        self._tails.move_to_end(tail.job.id)
        return self._with_tail(cached_job, tail)

    def _cached_tail(self, cached_job: CachedJob) -> _CachedTail | None:
        tail = self._tails.get(cached_job.snapshot.job.id)
        return tail if tail is not None and tail.job is cached_job.snapshot.job else None

    def _with_tail(self, cached_job: CachedJob, tail: _CachedTail) -> tuple[CachedJob, str | None]:
        age = self._freshness.age(tail.job.id, tail.read_at, is_watched=_is_log_watched(tail.job))
        return (cached_job._replace(age=age) if age > cached_job.age else cached_job), tail.text

    def _is_fresh(self, tail: _CachedTail) -> bool:
        if tail.missing or self._freshness.changed_since(tail.job.id, tail.read_at):
            return False
        age = self._freshness.age(tail.job.id, tail.read_at, is_watched=_is_log_watched(tail.job))
        return age <= self._freshness.max_age

    async def _read(self, job: Job) -> _CachedTail:
        started_at = self._clock()
        text = await self._disk.run_metadata(job.id, lambda: self._root.log_tail(job), KNOWN_DEADLINE_S)
        tail = self._with_last_text(_CachedTail(job, text, started_at))
        self._evict(job.id)
        self._tails[job.id] = tail
        self._weight += tail.weight
        while self._weight > self._cap:
            self._evict(next(iter(self._tails)))
        return tail

    def _with_last_text(self, tail: _CachedTail) -> _CachedTail:
        """Use the known text if the log has been missing for less than the grace period."""
        known = self._tails.get(tail.job.id)
        if tail.text is not None or known is None or known.text is None or known.job is not tail.job:
            self._missing.note_found(tail.job.id)
            return tail
        if not self._missing.note_missing(tail.job.id, tail.read_at):
            self._missing.note_found(tail.job.id)
            return tail
        return tail._replace(text=known.text, missing=True)

    def _evict(self, job_id: str) -> None:
        if (tail := self._tails.pop(job_id, None)) is not None:
            self._weight -= tail.weight


def _is_log_watched(job: Job) -> bool:
    """Return whether the watch of the job directory covers the log: only if the log is directly in it."""
    return "/" not in (job.details.log_path or DEFAULT_LOG)
