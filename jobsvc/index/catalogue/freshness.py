"""Return jobs from memory, or read them first if what is known is older than `max_age`.

A job is current if it was verified, or covered by a healthy watcher, within `max_age`. Any other job is read
from disk in a thread. The read is skipped if a check that cannot block shows that nothing changed. If storage
does not respond, the last known state is returned with its true age. Nothing is stored for unknown ids.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from math import inf
from secrets import token_bytes
from time import monotonic
from typing import NamedTuple

from jobsvc.domain.access import Token, can_see
from jobsvc.domain.errors import JobNotFound, StorageUnavailable
from jobsvc.index.catalogue.catalogue_updater import CatalogueUpdater
from jobsvc.index.catalogue.entries import Catalogue, Entry
from jobsvc.index.catalogue.root_check import RootCheck
from jobsvc.index.catalogue.shared_reads import KNOWN_DEADLINE_S, UNKNOWN_DEADLINE_S, SharedReads
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.storage.jobs.batch_read import ReadResult
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import is_job_id


class CachedJob(NamedTuple):
    """A job's snapshot, its age, and whether it is known to be current."""

    snapshot: JobSnapshot
    age: float
    """Seconds since the snapshot was last known to be current."""
    stale: bool
    """Whether storage did not respond, so that this is the last known snapshot."""
    unreadable: bool = False
    """Whether storage responded, but the current record is unreadable and this is the last good one."""


class Freshness:
    """Serve single jobs with their age. Event loop only."""

    def __init__(
        self,
        catalogue: Catalogue,
        updater: CatalogueUpdater,
        reads: SharedReads,
        *,
        coverage: WatchCoverage,
        root_check: RootCheck,
        max_age: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._entries = catalogue.entries
        self._unreadable = catalogue.unreadable
        self._updater = updater
        self._reads = reads
        self._coverage = coverage
        self._root_check = root_check
        self.max_age = max_age
        """Seconds; a returned snapshot is never older while storage responds."""
        self._clock = clock
        self.is_unchanged_nowait: Callable[[JobSnapshot], bool] | None = None
        """Return, without blocking the loop, whether a job is unchanged; False if it cannot be determined."""
        self._decoy_key = token_bytes(16)

    def owner_of(self, job_id: str) -> str | None:
        """Return the owner in a job's last snapshot; None for an unknown id."""
        entry = self._entries.get(job_id)
        return None if entry is None else entry.snapshot.job.owner

    def cached(self, job_id: str, token: Token | None = None) -> CachedJob | None:
        """Return a job from memory if it is fresh enough, or if storage is unavailable.

        Otherwise check without blocking whether it is unchanged; that check is skipped if `token` is given
        and cannot see the job. Returns None if the disk has to be read, or for an unknown id.
        """
        entry = self._entries.get(job_id)
        if entry is None:
            return None
        age = self._age(entry, entry.verified_at)
        unavailable = self._root_check.unavailable_since(entry.verified_at)
        if unavailable or age <= self.max_age:
            job = CachedJob(entry.snapshot, age, unavailable)
            return self._marked_unreadable(job) if self._unreadable else job
        if token is not None and not can_see(token, entry.snapshot.job.owner):
            return None
        return self._check_nowait(job_id, entry)

    def _check_nowait(self, job_id: str, entry: Entry) -> CachedJob | None:
        started_at, snapshot = self._clock(), entry.snapshot
        if self.is_unchanged_nowait is None or not self.is_unchanged_nowait(snapshot):
            return None
        self._updater.apply(ReadResult(job_id, started_at, snapshot), None)
        return self._cached_job(entry, stale=False)

    async def get(self, job_id: str, *, force: bool = False) -> CachedJob:
        """Return a job; `force` reads it from disk first. Raises JobNotFound or StorageUnavailable."""
        entry = self._entries.get(job_id)
        if entry is None:
            return await self._read_unknown(job_id)
        if not force and (job := self.cached(job_id)) is not None:
            return job
        return await self._read_known(job_id, entry, force=force)

    async def refresh(self, job_id: str) -> None:
        """Read a job from disk, starting now, and apply the result. Raises StorageUnavailable."""
        await self._reads.join(job_id, UNKNOWN_DEADLINE_S, must_start_now=True).wait()

    async def read_like_unknown(self, job_id: str, token: Token) -> CachedJob:
        """Read a job that is unknown, or whose owner's jobs `token` cannot see.

        A decoy name that no job has is read at the same time. Both cases therefore make the same calls to
        storage, and both take at least as long as finding that a job does not exist. A job that `token` can
        see does not wait for the decoy: some file systems look up the names of a directory one by one, so a
        job that hangs delays all unknown names. Returns the job without checking that `token` can see it.
        Raises JobNotFound or StorageUnavailable.
        """
        if not is_job_id(job_id):
            raise JobNotFound
        read = self._reads.join(job_id, UNKNOWN_DEADLINE_S, must_start_now=True)
        decoy = self._reads.join(self._decoy_of(job_id), UNKNOWN_DEADLINE_S, must_start_now=True)
        started_at = await read.wait()
        entry = self._entries.get(job_id)
        if entry is None or not can_see(token, entry.snapshot.job.owner):
            await decoy.wait()
            entry = self._entries.get(job_id)
        if entry is not None:
            return self._cached_job(entry, stale=entry.verified_at < started_at)
        raise self._absence(started_at)

    def _decoy_of(self, job_id: str) -> str:
        """Return a name that no job has; the same one for each id, because reads of one name are shared."""
        return blake2b(job_id.encode(), key=self._decoy_key, digest_size=16).hexdigest()

    def age(self, job_id: str, read_at: float, *, is_watched: bool) -> float:
        """Return the age, in seconds, of data of a job that was read at `read_at` (monotonic seconds).

        `is_watched`: whether the job's watch would have reported a change of that data.
        """
        entry = self._entries.get(job_id)
        if is_watched and entry is not None:
            return self._age(entry, read_at)
        return max(self._clock() - read_at, 0.0)

    def changed_since(self, job_id: str, read_at: float) -> bool:
        """Return whether an event for a job was received after `read_at` (monotonic seconds)."""
        entry = self._entries.get(job_id)
        return entry is not None and read_at < entry.last_event_at < inf

    def _age(self, entry: Entry, read_at: float) -> float:
        """Return the seconds since `read_at`, or since the end of its coverage by the watcher."""
        coverage = self._coverage
        if (
            coverage.valid_until > read_at >= coverage.start
            and read_at > entry.last_event_at
            and not coverage.needs_recheck(entry.snapshot)
        ):
            read_at = coverage.valid_until
        age = self._clock() - read_at
        return age if age > 0 else 0.0

    def _cached_job(self, entry: Entry, *, stale: bool) -> CachedJob:
        return self._marked_unreadable(CachedJob(entry.snapshot, self._age(entry, entry.verified_at), stale))

    def _marked_unreadable(self, job: CachedJob) -> CachedJob:
        """If the record is unreadable now, set the flag and the age since it was last known to be current."""
        record = self._unreadable.get(job.snapshot.job.id)
        if record is None:
            return job
        return job._replace(age=max(job.age, self._clock() - record.last_valid_at), unreadable=True)

    async def _read_known(self, job_id: str, entry: Entry, *, force: bool) -> CachedJob:
        requested_at = self._clock()
        try:
            await self._reads.join(job_id, KNOWN_DEADLINE_S, must_start_now=force).wait()
        except StorageUnavailable:
            return self._cached_job(self._entries.get(job_id, entry), stale=True)
        entry_now = self._entries.get(job_id)
        if entry_now is None:
            raise JobNotFound
        verified_since = requested_at if force else requested_at - self.max_age
        return self._cached_job(entry_now, stale=entry_now.verified_at < verified_since)

    async def _read_unknown(self, job_id: str) -> CachedJob:
        if not is_job_id(job_id):
            raise JobNotFound
        started_at = await self._reads.join(job_id, UNKNOWN_DEADLINE_S, must_start_now=True).wait()
        entry = self._entries.get(job_id)
        if entry is not None:
            return self._cached_job(entry, stale=False)
        raise self._absence(started_at)

    def _absence(self, started_at: float) -> JobNotFound | StorageUnavailable:
        """Return the error for a job that a read started at `started_at` did not find."""
        return StorageUnavailable() if self._root_check.unavailable_since(started_at) else JobNotFound()
