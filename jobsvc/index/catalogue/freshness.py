"""What an answer promises: no older than `max_age` while storage answers, and its true age when it does not.

A job that was verified, or covered by a healthy watcher, within `max_age` is answered from memory; any other
costs one hop to the disk, which everyone who asks at that moment shares; or none, where a look without a wait
tells that nothing changed. Nothing is kept of unknown ids.
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
"""Seconds that the disk has where a last known answer stands by."""
UNKNOWN_DEADLINE_S: Final = 5.0


class CachedJob(NamedTuple):
    """A job, and what may be believed of it."""

    snapshot: JobSnapshot
    age: float
    """Seconds since it was known to be true."""
    stale: bool
    """Whether storage did not answer, so that this is the last that was known."""
    unreadable: bool = False
    """Whether storage did answer, but this is the last good record: the present one cannot be read."""


class _Read:
    """One look at one job under way, shared by all who wait for it."""

    __slots__ = ("sweep", "task")

    def __init__(self, sweep: BatchRead, task: asyncio.Task[None]) -> None:
        self.sweep = sweep
        self.task = task

    async def ended(self) -> float:
        """Wait for the end; returns when it began. StorageUnavailable.

        The look belongs to nobody: an asker who goes away does not take it from the others.
        """
        await asyncio.shield(self.task)
        return self.sweep.results[0].started_at


class Freshness:
    """Answers for one job at a time, and takes in what looks at the disk have found."""

    def __init__(  # noqa: PLR0913, PLR0917 - one joint between all that it joins, made in one place
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
        """`wary` says of which readings no watcher's silence proves that they are still true.

        `recheck` reads a job again soon, without an answer.
        """
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._entries = catalogue.entries
        self.max_age = max_age
        """Seconds; no answer is older while storage answers."""
        self._clock = clock
        self._on_unreadable = on_unreadable or _ignore
        self._coverage = coverage or WatchCoverage()
        self._root_check = presence or RootCheck()
        self._settle = settle
        self._needs_recheck = wary or _never
        self.is_unchanged_nowait: Callable[[JobSnapshot], bool] | None = None
        """Says on the loop, without a wait, whether a job still is as it was read; False where it can't."""
        self._reads: dict[str, _Read] = {}
        self._decoy_key = token_bytes(16)
        self._unreadable = catalogue.unreadable
        self._missing_records = MissingFiles(recheck)
        self._missing_outputs = MissingFiles(recheck)

    def owner_of(self, job_id: str) -> str | None:
        """Return the owner of a job as it was read last; None for an unknown id."""
        entry = self._entries.get(job_id)
        return None if entry is None else entry.snapshot.job.owner

    def cached(self, job_id: str, token: Token | None = None) -> CachedJob | None:
        """Answer from memory, where that is fresh enough, or all there is while the storage is away.

        A job that is given `token` and that the token does not see is not looked at.
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
        """Answer for a job; `force` has the disk read first. JobNotFound, StorageUnavailable."""
        entry = self._entries.get(job_id)
        if entry is None:
            return await self._answer_unknown(job_id)
        if not force and (answer := self.cached(job_id)) is not None:
            return answer
        return await self._answer_known(job_id, entry, force=force)

    async def refresh(self, job_id: str) -> None:
        """Look at the disk once from now on, and take in what is found; StorageUnavailable."""
        await self._shared_read(job_id, UNKNOWN_DEADLINE_S, anew=True)

    async def read_unlisted(self, job_id: str, token: Token) -> CachedJob:
        """Look for a job that is unknown, or that belongs to an owner whose jobs `token` does not see.

        Another name, which no job has, is looked for at the same time. So both cases make the same calls to
        storage, and both take at least as long as finding out that a job does not exist. A job that `token`
        does see does not wait for that: some file systems look up the names of a directory one by one, so
        that a job that hangs delays all unknown names. JobNotFound, StorageUnavailable.
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
        """Return a name that no job has: always the same, since looks at one name are shared."""
        return blake2b(job_id.encode(), key=self._decoy_key, digest_size=16).hexdigest()

    def record_snapshot(self, job_id: str, reading: JobSnapshot, begun: float) -> None:
        """Take in what a request just saw; `begun` is when its look began, or before (monotonic seconds)."""
        self._put(job_id, reading, begun)

    def apply_result(self, found: ReadResult, place: RootStat | None) -> None:
        """Take in what one look found; an absence counts only where the root can be believed."""
        job_id, begun, outcome = found
        entry = self._entries.get(job_id)
        if entry is not None and outcome is entry.snapshot and entry.last_event_at < inf:
            if begun >= entry.verified_at:  # nothing new, and the watch is upon it
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
        # What became of an output that was already known to be missing was announced when it went missing.
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
        """Keep the known version of an output that has been missing for less than the grace."""
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
        """Return whether the last good record stands for one that is missing for a moment."""
        return job_id in self._entries and self._missing_records.is_bridged(job_id, begun)

    def _record_unreadable(self, job_id: str, wrong: BadRecord, begun: float) -> None:
        """Keep the last good record: as long as the farm has not written a better one, it is the answer."""
        self._missing_records.found(job_id)
        if self._keep_last_good(job_id, str(wrong), begun):
            self._missing_records.recheck_later(job_id)
        if job_id in self._unreadable:
            self._unreadable.log_once(job_id, begun)
        self._on_unreadable(job_id, wrong)

    def _keep_last_good(self, job_id: str, reason: str, begun: float) -> bool:
        """Take in a look that could not read the record; return whether it is the first in a row."""
        entry = self._entries.get(job_id)
        last_valid_at = begun if entry is None else self._last_valid_at(entry)
        return self._catalogue.mark_unreadable(job_id, reason, begun, last_valid_at)

    def _last_valid_at(self, entry: Entry) -> float:
        """Return the last moment at which an entry is known to have been true, before it was found changed.

        That is when it was read last, or the end of the time for which the watcher vouched for it.
        """
        coverage, verified, event = self._coverage, entry.verified_at, entry.last_event_at
        if event == inf or verified < coverage.start or self._needs_recheck(entry.snapshot):
            return verified
        return max(verified, coverage.valid_until if event < verified else min(coverage.valid_until, event))

    def _remove(self, job_id: str, begun: float) -> None:
        entry = self._entries.get(job_id)
        # A record that was already known to be missing was announced when it went missing.
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
        """Say how old that is which a look begun at `begun` (monotonic seconds) saw of a job, in seconds.

        `told`: whether a watch upon the job would have told of its change.
        """
        entry = self._entries.get(job_id)
        return self._age(entry, begun) if told and entry is not None else max(self._clock() - begun, 0.0)

    def changed_since(self, job_id: str, begun: float) -> bool:
        """Whether the watcher announced a change of a job after `begun` (monotonic seconds)."""
        entry = self._entries.get(job_id)
        return entry is not None and begun < entry.last_event_at < inf

    def _age(self, entry: Entry, begun: float) -> float:
        """Count from when it was seen, or from when the watcher last vouched for it."""
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
        """Date an answer back to when its record was last known to be true, where that is unreadable now."""
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
        """Wait for a look at the disk, with `anew` for one that has not begun yet; returns when it began."""
        return await self._join(job_id, deadline, anew=anew).ended()

    def _join(self, job_id: str, deadline: float, *, anew: bool) -> _Read:
        """Return the look under way, or begin one; with `anew` one that has not begun yet."""
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
            task.exception()  # whoever waited has it; where nobody did, nobody needs it


def _faults_raised(sweep: BatchRead) -> None:
    for found in sweep().results:
        if isinstance(found.outcome, OSError):
            raise found.outcome


def _ignore(_job_id: str, _wrong: BadRecord) -> None:
    """Nobody asked to be told."""


def _never(_reading: JobSnapshot) -> bool:
    return False
