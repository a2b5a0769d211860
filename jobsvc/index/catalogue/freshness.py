"""Return jobs that are at most `max_age` old while storage responds, and their true age while it does not.

A job that was verified, or covered by a healthy watcher, within `max_age` is returned from memory. Any other
job is read from disk in a thread; concurrent requests for it share that read. The read is skipped if a check
that cannot block shows that nothing changed. Nothing is stored for unknown ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from math import inf
from secrets import token_bytes
from time import monotonic
from typing import Final, NamedTuple

from jobsvc.domain.access import Token, can_see
from jobsvc.domain.errors import JobNotFound, StorageUnavailable
from jobsvc.domain.job import Status
from jobsvc.domain.status_record import BadRecord
from jobsvc.index.catalogue.entries import Catalogue, Entry
from jobsvc.index.catalogue.missing_files import MissingFiles
from jobsvc.index.catalogue.root_check import RootCheck
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.safe_open import RecordMissing
from jobsvc.storage.jobs.batch_read import BatchRead, ReadResult
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import RootStat
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import is_job_id

KNOWN_DEADLINE_S: Final = 1.0
"""Seconds to wait for a read if a last known snapshot can be returned instead."""
UNKNOWN_DEADLINE_S: Final = 5.0
"""Seconds to wait for a read if there is nothing else to return."""


class CachedJob(NamedTuple):
    """A job's snapshot, its age, and whether it is known to be current."""

    snapshot: JobSnapshot
    age: float
    """Seconds since the snapshot was last known to be current."""
    stale: bool
    """Whether storage did not respond, so that this is the last known snapshot."""
    unreadable: bool = False
    """Whether storage responded, but the current record is unreadable and this is the last good one."""


class _Read:
    """A read of one job in progress, shared by all requests that wait for it."""

    __slots__ = ("sweep", "task")

    def __init__(self, sweep: BatchRead, task: asyncio.Task[None]) -> None:
        self.sweep = sweep
        self.task = task

    async def ended(self) -> float:
        """Wait until the read ends. Returns when it started (monotonic seconds).

        The read is shielded: cancelling one waiting request does not cancel it for the others.
        Raises StorageUnavailable.
        """
        await asyncio.shield(self.task)
        return self.sweep.results[0].started_at


class Freshness:
    """Serve single jobs with their age, and apply the results of reads to the catalogue. Event loop only."""

    def __init__(  # noqa: PLR0913, PLR0917 - connects many parts, constructed in one place
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        catalogue: Catalogue,
        max_age: float,
        clock: Callable[[], float] = monotonic,
        on_unreadable: Callable[[str, BadRecord], None] | None = None,
        *,
        coverage: WatchCoverage | None = None,
        presence: RootCheck | None = None,
        settle: Callable[[str, Entry], None] | None = None,
        wary: Callable[[JobSnapshot], bool] | None = None,
        recheck: Callable[[str], None] | None = None,
    ) -> None:
        """`wary` returns whether a snapshot must be checked on disk even while the watcher is healthy.

        `settle` is called with each job stored, to have it watched. `recheck` queues a job to be read again.
        """
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._entries = catalogue.entries
        self.max_age = max_age
        """Seconds; a returned snapshot is never older while storage responds."""
        self._clock = clock
        self._on_unreadable = on_unreadable or _ignore
        self._coverage = coverage or WatchCoverage()
        self._root_check = presence or RootCheck()
        self._settle = settle
        self._needs_recheck = wary or _never
        self.is_unchanged_nowait: Callable[[JobSnapshot], bool] | None = None
        """Return, without blocking the loop, whether a job is unchanged; False if it cannot be determined."""
        self._reads: dict[str, _Read] = {}
        self._decoy_key = token_bytes(16)
        self._unreadable = catalogue.unreadable
        self._missing_records = MissingFiles(recheck)
        self._missing_outputs = MissingFiles(recheck)

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
        age, away = self._age(entry, entry.verified_at), self._root_check.unavailable_since(entry.verified_at)
        if away or age <= self.max_age:
            answer = CachedJob(entry.snapshot, age, away)
            return self._marked_unreadable(answer) if self._unreadable else answer
        if token is not None and not can_see(token, entry.snapshot.job.owner):
            return None
        return self._check_nowait(job_id, entry)

    def _check_nowait(self, job_id: str, entry: Entry) -> CachedJob | None:
        begun, reading = self._clock(), entry.snapshot
        if self.is_unchanged_nowait is None or not self.is_unchanged_nowait(reading):
            return None
        self.apply_result(ReadResult(job_id, begun, reading), None)
        return self._cached_job(entry, stale=False)

    async def job(self, job_id: str, *, force: bool = False) -> CachedJob:
        """Return a job; `force` reads it from disk first. Raises JobNotFound or StorageUnavailable."""
        entry = self._entries.get(job_id)
        if entry is None:
            return await self._answer_unknown(job_id)
        if not force and (answer := self.cached(job_id)) is not None:
            return answer
        return await self._answer_known(job_id, entry, force=force)

    async def refresh(self, job_id: str) -> None:
        """Read a job from disk, starting now, and apply the result. Raises StorageUnavailable."""
        await self._shared_read(job_id, UNKNOWN_DEADLINE_S, anew=True)

    async def read_unlisted(self, job_id: str, token: Token) -> CachedJob:
        """Read a job that is unknown, or whose owner's jobs `token` cannot see.

        A decoy name that no job has is read at the same time. Both cases therefore make the same calls to
        storage, and both take at least as long as finding that a job does not exist. A job that `token` can
        see does not wait for the decoy: some file systems look up the names of a directory one by one, so a
        job that hangs delays all unknown names. Returns the job without checking that `token` can see it.
        Raises JobNotFound or StorageUnavailable.
        """
        if not is_job_id(job_id):
            raise JobNotFound
        look = self._join(job_id, UNKNOWN_DEADLINE_S, anew=True)
        decoy = self._join(self._decoy_of(job_id), UNKNOWN_DEADLINE_S, anew=True)
        begun = await look.ended()
        entry = self._entries.get(job_id)
        if entry is None or not can_see(token, entry.snapshot.job.owner):
            await decoy.ended()
            entry = self._entries.get(job_id)
        if entry is not None:
            return self._cached_job(entry, stale=entry.verified_at < begun)
        if self._root_check.unavailable_since(begun):
            raise StorageUnavailable
        raise JobNotFound

    def _decoy_of(self, job_id: str) -> str:
        """Return a name that no job has; the same one for each id, because reads of one name are shared."""
        return blake2b(job_id.encode(), key=self._decoy_key, digest_size=16).hexdigest()

    def record_snapshot(self, job_id: str, reading: JobSnapshot, begun: float) -> None:
        """Store what a request just read; its read started at or after `begun` (monotonic seconds)."""
        self._put(job_id, reading, begun)

    def apply_result(self, found: ReadResult, place: RootStat | None) -> None:
        """Apply the result of one read to the catalogue.

        `place` is the root after the read, or None. A missing job is removed only if the root is plausible.
        """
        job_id, begun, outcome = found
        entry = self._entries.get(job_id)
        if entry is not None and outcome is entry.snapshot and entry.last_event_at < inf:
            if begun >= entry.verified_at:  # unchanged, and already watched
                self._readable(job_id)
                entry.verified_at = begun
        elif isinstance(outcome, JobSnapshot):
            self._put(job_id, outcome, begun)
        elif isinstance(outcome, BadRecord):
            self._record_unreadable(job_id, outcome, begun)
        elif isinstance(outcome, RecordMissing) and self._record_is_bridged(job_id, begun):
            self._keep_last_good(job_id, str(outcome), begun)
        elif not isinstance(outcome, OSError) and place is not None and self._is_believed(place, begun):
            self._remove(job_id, begun)

    def _put(self, job_id: str, reading: JobSnapshot, begun: float) -> None:
        if self._catalogue.is_older_read(job_id, begun):
            return
        entry = self._entries.get(job_id)
        # If the output was already known to be missing, the event came when it went missing.
        covered = (
            entry is not None and job_id not in self._missing_outputs and self._coverage.is_covered(entry)
        )
        if entry is not None:
            reading = self._with_missing_output(entry.snapshot, reading, begun)
        self._unreadable.discard(job_id)
        self._missing_records.found(job_id)
        changed = self._catalogue.put(job_id, reading, begun)
        if self._settle is not None:
            self._settle(job_id, self._entries[job_id])
        if changed and covered:
            self._coverage.record_unannounced(job_id, self._clock())

    def _with_missing_output(self, known: JobSnapshot, reading: JobSnapshot, begun: float) -> JobSnapshot:
        """Keep the known version of an output that has been missing for less than ABSENCE_GRACE_S."""
        job_id, job = reading.job.id, reading.job
        same_output = job.status is Status.COMPLETED and job.output_path == known.job.output_path
        if reading.has_output or not known.has_output or not same_output:
            self._missing_outputs.found(job_id)
            return reading
        if not self._missing_outputs.is_bridged(job_id, begun):
            self._missing_outputs.found(job_id)
            return reading
        return JobSnapshot(job, reading.record_version, known.output_version, settled=reading.is_stable)

    def _readable(self, job_id: str) -> None:
        self._unreadable.discard(job_id)
        self._missing_records.found(job_id)
        self._missing_outputs.found(job_id)

    def _record_is_bridged(self, job_id: str, begun: float) -> bool:
        """Return whether to keep the last good record because the file has been missing only briefly."""
        return job_id in self._entries and self._missing_records.is_bridged(job_id, begun)

    def _record_unreadable(self, job_id: str, wrong: BadRecord, begun: float) -> None:
        """Keep the last good record, which is returned until the farm writes a valid one."""
        self._missing_records.found(job_id)
        if self._keep_last_good(job_id, str(wrong), begun):
            self._missing_records.recheck_later(job_id)
        if job_id in self._unreadable:
            self._unreadable.log_once(job_id, begun)
        self._on_unreadable(job_id, wrong)

    def _keep_last_good(self, job_id: str, reason: str, begun: float) -> bool:
        """Record a failed read of the record. Returns whether it is the first in a row."""
        entry = self._entries.get(job_id)
        last_valid_at = begun if entry is None else self._last_valid_at(entry)
        return self._catalogue.mark_unreadable(job_id, reason, begun, last_valid_at)

    def _last_valid_at(self, entry: Entry) -> float:
        """Return the last time (monotonic seconds) at which an entry was known to be current.

        That is the start of its last read or, if later, the end of its coverage by the watcher.
        """
        coverage, verified, event = self._coverage, entry.verified_at, entry.last_event_at
        if event == inf or verified < coverage.start or self._needs_recheck(entry.snapshot):
            return verified
        return max(verified, coverage.valid_until if event < verified else min(coverage.valid_until, event))

    def _remove(self, job_id: str, begun: float) -> None:
        entry = self._entries.get(job_id)
        # If the record was already known to be missing, the event came when it went missing.
        covered = (
            entry is not None and job_id not in self._missing_records and self._coverage.is_covered(entry)
        )
        self._missing_records.found(job_id)
        self._missing_outputs.found(job_id)
        if self._catalogue.remove(job_id, begun) and covered:
            self._coverage.record_unannounced(job_id, self._clock())

    def _is_believed(self, place: RootStat, begun: float) -> bool:
        reason = self._root_check.problem(place, len(self._catalogue))
        if reason is not None:
            self._root_check.mark_unavailable(reason, begun)
        return reason is None

    def age(self, job_id: str, begun: float, *, told: bool) -> float:
        """Return the age, in seconds, of data of a job that was read at `begun` (monotonic seconds).

        `told`: whether the job's watch would have reported a change of that data.
        """
        entry = self._entries.get(job_id)
        return self._age(entry, begun) if told and entry is not None else max(self._clock() - begun, 0.0)

    def changed_since(self, job_id: str, begun: float) -> bool:
        """Return whether an event for a job was received after `begun` (monotonic seconds)."""
        entry = self._entries.get(job_id)
        return entry is not None and begun < entry.last_event_at < inf

    def _age(self, entry: Entry, begun: float) -> float:
        """Return the seconds since the read at `begun`, or since the end of its coverage by the watcher."""
        coverage = self._coverage
        if (
            coverage.valid_until > begun >= coverage.start
            and begun > entry.last_event_at
            and not self._needs_recheck(entry.snapshot)
        ):
            begun = coverage.valid_until
        age = self._clock() - begun
        return age if age > 0 else 0.0

    def _cached_job(self, entry: Entry, *, stale: bool) -> CachedJob:
        return self._marked_unreadable(CachedJob(entry.snapshot, self._age(entry, entry.verified_at), stale))

    def _marked_unreadable(self, answer: CachedJob) -> CachedJob:
        """If the record is unreadable now, set the flag and the age since it was last known to be current."""
        record = self._unreadable.get(answer.snapshot.job.id)
        if record is None:
            return answer
        return answer._replace(age=max(answer.age, self._clock() - record.last_valid_at), unreadable=True)

    async def _answer_known(self, job_id: str, entry: Entry, *, force: bool) -> CachedJob:
        asked = self._clock()
        try:
            await self._shared_read(job_id, KNOWN_DEADLINE_S, anew=force)
        except StorageUnavailable:
            return self._cached_job(self._entries.get(job_id, entry), stale=True)
        now_known = self._entries.get(job_id)
        if now_known is None:
            raise JobNotFound
        due = asked if force else asked - self.max_age
        return self._cached_job(now_known, stale=now_known.verified_at < due)

    async def _answer_unknown(self, job_id: str) -> CachedJob:
        if not is_job_id(job_id):
            raise JobNotFound
        begun = await self._shared_read(job_id, UNKNOWN_DEADLINE_S, anew=True)
        entry = self._entries.get(job_id)
        if entry is not None:
            return self._cached_job(entry, stale=False)
        if self._root_check.unavailable_since(begun):
            raise StorageUnavailable
        raise JobNotFound

    async def _shared_read(self, job_id: str, deadline: float, *, anew: bool) -> float:
        """Wait for a read of a job. Returns when it started (monotonic seconds).

        `anew` requires a read that had not started before this call. Raises StorageUnavailable.
        """
        return await self._join(job_id, deadline, anew=anew).ended()

    def _join(self, job_id: str, deadline: float, *, anew: bool) -> _Read:
        """Return the read in progress, or start one; with `anew`, join only a read that has not started."""
        read = self._reads.get(job_id)
        if read is None or (anew and read.sweep.started_at is not None):
            read = self._start_read(job_id, deadline)
        return read

    def _start_read(self, job_id: str, deadline: float) -> _Read:
        entry = self._entries.get(job_id)
        sweep = BatchRead(
            self._root, [(job_id, None if entry is None else entry.snapshot)], clock=self._clock
        )
        read = _Read(sweep, asyncio.get_running_loop().create_task(self._read(job_id, sweep, deadline)))
        self._reads[job_id] = read
        read.task.add_done_callback(lambda task: self._on_read_done(job_id, read, task))
        return read

    async def _read(self, job_id: str, sweep: BatchRead, deadline: float) -> None:
        await self._disk.run_metadata(job_id, lambda: _faults_raised(sweep), deadline)
        for found in sweep.results:
            self.apply_result(found, sweep.root_stat)

    def _on_read_done(self, job_id: str, read: _Read, task: asyncio.Task[None]) -> None:
        if self._reads.get(job_id) is read:
            del self._reads[job_id]
        if not task.cancelled():
            task.exception()  # marks it as retrieved; requests that wait for it get it too


def _faults_raised(sweep: BatchRead) -> None:
    for found in sweep().results:
        if isinstance(found.outcome, OSError):
            raise found.outcome


def _ignore(_job_id: str, _wrong: BadRecord) -> None:
    """Do nothing."""


def _never(_reading: JobSnapshot) -> bool:
    return False
