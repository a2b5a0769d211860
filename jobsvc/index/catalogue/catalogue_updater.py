"""Apply the results of reads to the catalogue. Event loop only; all times are monotonic seconds.

A file that is missing only briefly keeps its last known version, an unreadable record the last good one, and
jobs are removed only while the root is plausible. A change of a watched job without an event is reported to
the watch coverage.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from jobsvc.domain.job import Job, Status
from jobsvc.domain.status_record import BadRecord
from jobsvc.index.catalogue.entries import Catalogue, Entry
from jobsvc.index.catalogue.missing_files import MissingFiles
from jobsvc.index.catalogue.root_check import RootCheck
from jobsvc.index.catalogue.watch_coverage import WatchCoverage
from jobsvc.storage.files.safe_open import RecordMissing
from jobsvc.storage.jobs.batch_read import ReadResult
from jobsvc.storage.jobs.root_listing import RootStat
from jobsvc.storage.jobs.snapshot import JobSnapshot


class CatalogueUpdater:
    """The only caller of the catalogue's methods that store or remove jobs."""

    def __init__(
        self,
        catalogue: Catalogue,
        coverage: WatchCoverage,
        root_check: RootCheck,
        *,
        on_unreadable: Callable[[str, BadRecord], None],
        ensure_watched: Callable[[str, Entry], None],
        recheck: Callable[[str], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`on_unreadable` is called for each read of an unreadable record.

        `ensure_watched` is called with each job stored. `recheck` queues a job to be read again.
        """
        self._catalogue = catalogue
        self._entries = catalogue.entries
        self._unreadable = catalogue.unreadable
        self._coverage = coverage
        self._root_check = root_check
        self._on_unreadable = on_unreadable
        self._ensure_watched = ensure_watched
        self._clock = clock
        self._missing_records = MissingFiles(recheck)
        self._missing_outputs = MissingFiles(recheck)

    @property
    def keeps_missing_files(self) -> bool:
        """Whether a job is in the catalogue with a file that the last read did not find."""
        return bool(self._missing_records or self._missing_outputs)

    def apply(self, result: ReadResult, root_stat: RootStat | None) -> None:
        """Apply the result of one read.

        `root_stat` is the root after the read, or None. A missing job is removed only if the root is
        plausible.
        """
        job_id, started_at, outcome = result
        entry = self._entries.get(job_id)
        if entry is not None and outcome is entry.snapshot and entry.is_watched:
            if started_at >= entry.verified_at:  # unchanged, and already watched
                self._mark_readable(job_id)
                entry.verified_at = started_at
        elif isinstance(outcome, JobSnapshot):
            self.store(job_id, outcome, started_at)
        elif isinstance(outcome, BadRecord):
            self._apply_bad_record(job_id, outcome, started_at)
        elif isinstance(outcome, RecordMissing) and self._note_missing_record(job_id, started_at):
            self._keep_last_good(job_id, str(outcome), started_at)
        elif (
            not isinstance(outcome, OSError)
            and root_stat is not None
            and self._check_root(root_stat, started_at)
        ):
            self._remove(job_id, started_at)

    def store(self, job_id: str, snapshot: JobSnapshot, started_at: float) -> None:
        """Store a snapshot whose read started at or after `started_at`, unless a later one is stored."""
        if self._catalogue.is_older_read(job_id, started_at):
            return
        entry = self._entries.get(job_id)
        # If the output was already known to be missing, the event came when it went missing.
        covered = (
            entry is not None and job_id not in self._missing_outputs and self._coverage.is_covered(entry)
        )
        if entry is not None:
            snapshot = self._with_missing_output(entry.snapshot, snapshot, started_at)
        self._unreadable.discard(job_id)
        self._missing_records.note_found(job_id)
        should_have_event = self._catalogue.put(job_id, snapshot, started_at)
        self._ensure_watched(job_id, self._entries[job_id])
        if should_have_event and covered:
            self._coverage.note_unannounced(job_id, self._clock())

    def _with_missing_output(
        self, known: JobSnapshot, snapshot: JobSnapshot, started_at: float
    ) -> JobSnapshot:
        """Keep the known version of an output that has been missing for less than ABSENCE_GRACE_S."""
        job_id = snapshot.job.id
        if (
            not _names_same_outputs(snapshot.job, known.job)
            or not snapshot.lost_output(known)
            or not self._missing_outputs.note_missing(job_id, started_at)
        ):
            self._missing_outputs.note_found(job_id)
            return snapshot
        return snapshot.with_outputs_of(known)

    def _mark_readable(self, job_id: str) -> None:
        self._unreadable.discard(job_id)
        self._missing_records.note_found(job_id)
        self._missing_outputs.note_found(job_id)

    def _note_missing_record(self, job_id: str, started_at: float) -> bool:
        """Return whether to keep the last good record because the file has been missing only briefly."""
        return job_id in self._entries and self._missing_records.note_missing(job_id, started_at)

    def _apply_bad_record(self, job_id: str, exc: BadRecord, started_at: float) -> None:
        """Keep the last good record, which is returned until the farm writes a valid one."""
        self._missing_records.note_found(job_id)
        if self._keep_last_good(job_id, str(exc), started_at):
            self._missing_records.recheck_later(job_id)
        if job_id in self._unreadable:
            self._unreadable.log_once(job_id, started_at)
        self._on_unreadable(job_id, exc)

    def _keep_last_good(self, job_id: str, reason: str, started_at: float) -> bool:
        """Record a failed read of the record. Returns whether it is the first in a row."""
        entry = self._entries.get(job_id)
        last_valid_at = started_at if entry is None else self._coverage.last_valid_at(entry)
        return self._catalogue.mark_unreadable(job_id, reason, started_at, last_valid_at)

    def _remove(self, job_id: str, started_at: float) -> None:
        entry = self._entries.get(job_id)
        # If the record was already known to be missing, the event came when it went missing.
        covered = (
            entry is not None and job_id not in self._missing_records and self._coverage.is_covered(entry)
        )
        self._missing_records.note_found(job_id)
        self._missing_outputs.note_found(job_id)
        if self._catalogue.remove(job_id, started_at) and covered:
            self._coverage.note_unannounced(job_id, self._clock())

    def _check_root(self, root_stat: RootStat, started_at: float) -> bool:
        reason = self._root_check.problem(root_stat, len(self._catalogue))
        if reason is not None:
            self._root_check.mark_unavailable(reason, started_at)
        return reason is None


def _names_same_outputs(job: Job, known: Job) -> bool:
    """Return whether a completed job names the same outputs as before."""
    if job.status is not Status.COMPLETED or job.output_path != known.output_path:
        return False
    if job is known or not (job.lists_outputs or known.lists_outputs):
        return True
    return job.outputs == known.outputs
