"""Looks at many jobs in one hop to a thread: a batch that stops after its time and leaves the rest over.

The loop may read `found` while the thread still works: where one job hangs, what came before it is kept
and the next hop goes on behind it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Sequence
from resource import RUSAGE_THREAD, getrusage
from time import monotonic, thread_time
from typing import Final, NamedTuple, TypeAlias

from jobsvc.domain.status_record import BadRecord
from jobsvc.storage.files.safe_open import PathNotFound
from jobsvc.storage.filesystem.mounts import may_cache_names
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import RootStat, list_root, stat_root
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.jobs.stat_check import DIRECTORY_FLAGS, is_unchanged

MAX_CALL_S: Final = 0.1
"""How long one hop goes on before it lets others at the thread, and at the interpreter's lock."""

_JOBS_PER_CLOCK_READ: Final = 16
"""Looks that share one moment: each is dated when the first began."""

ReadRequest: TypeAlias = tuple[str, JobSnapshot | None]
"""A job's id, and what is known of it."""
Outcome: TypeAlias = JobSnapshot | BadRecord | PathNotFound | OSError


class ReadResult(NamedTuple):
    """What one look at one job found."""

    job_id: str
    started_at: float
    outcome: Outcome


class BatchRead:
    """One hop's work; called in a thread, once."""

    def __init__(
        self,
        root: JobsRoot,
        wanted: Sequence[ReadRequest],
        *,
        quick: bool = False,
        listed: Container[str] | None = None,
        seconds: float = MAX_CALL_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare; `listed` are the names in the root, where it was listed just before."""
        self._root = root
        self._wanted = wanted
        self._listed = listed
        self._quick = quick
        self._seconds = seconds
        self._clock = clock
        self.started_at: float | None = None
        """When the thread set out; None while the call waits for one."""
        self.results: list[ReadResult] = []
        self.root_stat: RootStat | None = None
        """The root as it stood after the last look, where a job was absent."""
        self.abandoned = False
        self.cost = 0.0
        """Seconds of a processor that it took."""
        self.hit_disk = False
        """Whether much of it was on a disk of this machine, and not in memory (getrusage(2), ru_inblock)."""
        self.finished = False
        """Whether the thread is through with it, well or not."""

    def __call__(self) -> BatchRead:
        """Look at the jobs in turn; raises OSError where the root itself can't be looked at."""
        self.started_at = self._clock()
        before, read = thread_time(), _blocks_read()
        try:
            if self._quick:
                self._run_quickly()
            else:
                self._run(lambda _job_id, _known: None)
            if any(isinstance(found.outcome, PathNotFound) for found in self.results):
                self._confirm_absences()
                self.root_stat = stat_root(self._root.path)
        finally:
            self.cost = thread_time() - before
            self.hit_disk = _blocks_read() - read > len(self.results)
            self.finished = True
        return self

    def _run_quickly(self) -> None:
        root = os.open(self._root.path, DIRECTORY_FLAGS)
        try:
            self._run(lambda job_id, known: known if is_unchanged(root, job_id, known) else None)
        finally:
            os.close(root)

    def _run(self, glance: Callable[[str, JobSnapshot], JobSnapshot | None]) -> None:
        found = self.results
        now = self._clock()
        until = now + self._seconds
        for number, (job_id, known) in enumerate(self._wanted, 1):
            outcome = (known and glance(job_id, known)) or read_job(self._root, job_id, known)
            found.append(ReadResult(job_id, now, outcome))
            if number % _JOBS_PER_CLOCK_READ == 0:
                now = self._clock()
            if now > until or self.abandoned:
                break

    def _confirm_absences(self) -> None:
        """Have a known job that was not found be a fault of storage where the root lists it after all.

        Network and FUSE file systems cache names. What is absent within a job's directory, the reader has
        confirmed.
        """
        doubtful = [
            number
            for number, (_, known) in enumerate(self._wanted[: len(self.results)])
            if known is not None and isinstance(self.results[number].outcome, PathNotFound)
        ]
        if not doubtful or self._quick or not may_cache_names(os.stat(self._root.path).st_dev):  # noqa: PTH116
            return
        listed = list_root(self._root.path).inodes if self._listed is None else self._listed
        for number in doubtful:
            found = self.results[number]
            if found.job_id in listed and not self._root.has_name(found.job_id):
                stale = OSError(errno.ESTALE, "listed, but not found", found.job_id)
                self.results[number] = found._replace(outcome=stale)

    def remaining(self) -> Sequence[ReadRequest]:
        """Return what has not been looked at yet."""
        return self._wanted[len(self.results) :]


def _blocks_read() -> int:
    """Count the blocks of 512 bytes that disks have read for this thread."""
    return getrusage(RUSAGE_THREAD).ru_inblock


def read_job(root: JobsRoot, job_id: str, known: JobSnapshot | None) -> Outcome:
    """Look at one job; what JobsRoot.read raises is returned."""
    try:
        return root.read(job_id, known)
    except (PathNotFound, BadRecord, OSError) as outcome:
        # Its frames would keep everything they saw alive.
        return outcome.with_traceback(None)
