"""Read many jobs in one thread call, which stops when its time is used up and leaves the rest.

The event loop may read `results` while the thread still runs: if one job hangs, the results before it are
kept and the next call continues after it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Sequence
from resource import RUSAGE_THREAD, getrusage
from time import monotonic, thread_time
from typing import Final, NamedTuple, TypeAlias

from jobsvc.domain.status_record import BadRecord
from jobsvc.storage.files.safe_open import DIRECTORY_FLAGS, PathNotFound
from jobsvc.storage.filesystem.mounts import may_cache_names
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import RootStat, list_root, stat_root
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.jobs.stat_check import is_unchanged

MAX_CALL_S: Final = 0.1
"""Seconds after which a call ends, so that others can use the thread and the GIL."""

_JOBS_PER_CLOCK_READ: Final = 16
"""Number of reads that share one clock reading, taken when the first of them starts."""

ReadRequest: TypeAlias = tuple[str, JobSnapshot | None]
"""A job's id, and its last snapshot if there is one."""
Outcome: TypeAlias = JobSnapshot | BadRecord | PathNotFound | OSError


class ReadResult(NamedTuple):
    """The outcome of reading one job."""

    job_id: str
    started_at: float
    outcome: Outcome


class BatchRead:
    """One thread call that reads jobs; call it once."""

    def __init__(
        self,
        root: JobsRoot,
        requests: Sequence[ReadRequest],
        *,
        is_local: bool = False,
        listed: Container[str] | None = None,
        seconds: float = MAX_CALL_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare the call; `listed` are the names in the root, if it was listed just before.

        `is_local`: the file system is local, so that known jobs can be checked with stat(2) first. `seconds`
        limits the duration.
        """
        self._root = root
        self._requests = requests
        self._listed = listed
        self._is_local = is_local
        self._seconds = seconds
        self._clock = clock
        self.started_at: float | None = None
        """When the call started (`clock`); None while it waits for a thread."""
        self.results: list[ReadResult] = []
        self.root_stat: RootStat | None = None
        """The root after the last read; set only if a job was not found."""
        self.abandoned = False
        self.cost = 0.0
        """CPU time of the call, in seconds."""
        self.hit_disk = False
        """Whether local disks had to read more blocks than there are results (getrusage(2), ru_inblock)."""
        self.finished = False
        """Whether the call has ended, successfully or not."""

    def __call__(self) -> BatchRead:
        """Read the jobs in order; raises OSError if the root itself cannot be read."""
        self.started_at = self._clock()
        cpu_before, blocks_before = thread_time(), _blocks_read()
        try:
            if self._is_local:
                self._run_with_stat_check()
            else:
                self._run(lambda _job_id, _known: None)
            if any(isinstance(result.outcome, PathNotFound) for result in self.results):
                self._confirm_absences()
                self.root_stat = stat_root(self._root.path)
        finally:
            self.cost = thread_time() - cpu_before
            self.hit_disk = _blocks_read() - blocks_before > len(self.results)
            self.finished = True
        return self

    def _run_with_stat_check(self) -> None:
        root = os.open(self._root.path, DIRECTORY_FLAGS)
        try:
            self._run(lambda job_id, known: known if is_unchanged(root, job_id, known) else None)
        finally:
            os.close(root)

    def _run(self, check: Callable[[str, JobSnapshot], JobSnapshot | None]) -> None:
        results = self.results
        now = self._clock()
        until = now + self._seconds
        for number, (job_id, known) in enumerate(self._requests, 1):
            outcome = (known and check(job_id, known)) or read_job(self._root, job_id, known)
            results.append(ReadResult(job_id, now, outcome))
            if number % _JOBS_PER_CLOCK_READ == 0:
                now = self._clock()
            if now > until or self.abandoned:
                break

    def _confirm_absences(self) -> None:
        """Replace PathNotFound with ESTALE for known jobs that the root lists but stat does not find.

        Network and FUSE file systems cache names. A file missing in a job directory was already confirmed by
        the reader.
        """
        suspect = [
            number
            for number, (_, known) in enumerate(self._requests[: len(self.results)])
            if known is not None and isinstance(self.results[number].outcome, PathNotFound)
        ]
        if not suspect or self._is_local or not may_cache_names(os.stat(self._root.path).st_dev):  # noqa: PTH116
            return
        listed = list_root(self._root.path).inodes if self._listed is None else self._listed
        for number in suspect:
            result = self.results[number]
            if result.job_id in listed and not self._root.has_name(result.job_id):
                stale = OSError(errno.ESTALE, "listed, but not found", result.job_id)
                self.results[number] = result._replace(outcome=stale)

    def remaining(self) -> Sequence[ReadRequest]:
        """Return the requests that have not been read yet."""
        return self._requests[len(self.results) :]


def _blocks_read() -> int:
    """Return the number of 512-byte blocks that disks have read for this thread."""
    return getrusage(RUSAGE_THREAD).ru_inblock


def read_job(root: JobsRoot, job_id: str, known: JobSnapshot | None) -> Outcome:
    """Read one job; return what JobsRoot.read returns or raises."""
    try:
        return root.read(job_id, known)
    except (PathNotFound, BadRecord, OSError) as outcome:
        # The traceback's frames would keep their local variables alive.
        return outcome.with_traceback(None)
