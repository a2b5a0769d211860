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
from jobsvc.storage.files.safe_open import Absent
from jobsvc.storage.filesystem.mounts import may_cache_names
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import Place, list_root, place_of
from jobsvc.storage.jobs.snapshot import Reading
from jobsvc.storage.jobs.stat_check import FOLDER, unchanged

SECONDS: Final = 0.1
"""How long one hop goes on before it lets others at the thread, and at the interpreter's lock."""

_STRIDE: Final = 16
"""Looks that share one moment: each is dated when the first began."""

Wanted: TypeAlias = tuple[str, Reading | None]
"""A job's id, and what is known of it."""
Outcome: TypeAlias = Reading | BadRecord | Absent | OSError


class Found(NamedTuple):
    """What one look at one job found."""

    job_id: str
    begun: float
    outcome: Outcome


class Sweep:
    """One hop's work; called in a thread, once."""

    def __init__(
        self,
        root: JobsRoot,
        wanted: Sequence[Wanted],
        *,
        quick: bool = False,
        listed: Container[str] | None = None,
        seconds: float = SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare; `listed` are the names in the root, where it was listed just before."""
        self._root = root
        self._wanted = wanted
        self._listed = listed
        self._quick = quick
        self._seconds = seconds
        self._clock = clock
        self.begun: float | None = None
        """When the thread set out; None while the call waits for one."""
        self.found: list[Found] = []
        self.place: Place | None = None
        """The root as it stood after the last look, where a job was absent."""
        self.abandoned = False
        self.cost = 0.0
        """Seconds of a processor that it took."""
        self.fetched = False
        """Whether much of it was on a disk of this machine, and not in memory (getrusage(2), ru_inblock)."""
        self.ended = False
        """Whether the thread is through with it, well or not."""

    def __call__(self) -> Sweep:
        """Look at the jobs in turn; raises OSError where the root itself can't be looked at."""
        self.begun = self._clock()
        before, read = thread_time(), _blocks_read()
        try:
            if self._quick:
                self._run_quickly()
            else:
                self._run(lambda _job_id, _known: None)
            if any(isinstance(found.outcome, Absent) for found in self.found):
                self._confirm_absences()
                self.place = place_of(self._root.path)
        finally:
            self.cost = thread_time() - before
            self.fetched = _blocks_read() - read > len(self.found)
            self.ended = True
        return self

    def _run_quickly(self) -> None:
        root = os.open(self._root.path, FOLDER)
        try:
            self._run(lambda job_id, known: known if unchanged(root, job_id, known) else None)
        finally:
            os.close(root)

    def _run(self, glance: Callable[[str, Reading], Reading | None]) -> None:
        found = self.found
        now = self._clock()
        until = now + self._seconds
        for number, (job_id, known) in enumerate(self._wanted, 1):
            outcome = (known and glance(job_id, known)) or look(self._root, job_id, known)
            found.append(Found(job_id, now, outcome))
            if number % _STRIDE == 0:
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
            for number, (_, known) in enumerate(self._wanted[: len(self.found)])
            if known is not None and isinstance(self.found[number].outcome, Absent)
        ]
        if not doubtful or self._quick or not may_cache_names(os.stat(self._root.path).st_dev):  # noqa: PTH116
            return
        listed = list_root(self._root.path).inodes if self._listed is None else self._listed
        for number in doubtful:
            found = self.found[number]
            if found.job_id in listed and not self._root.has_name(found.job_id):
                stale = OSError(errno.ESTALE, "listed, but not found", found.job_id)
                self.found[number] = found._replace(outcome=stale)

    def rest(self) -> Sequence[Wanted]:
        """Return what has not been looked at yet."""
        return self._wanted[len(self.found) :]


def _blocks_read() -> int:
    """Count the blocks of 512 bytes that disks have read for this thread."""
    return getrusage(RUSAGE_THREAD).ru_inblock


def look(root: JobsRoot, job_id: str, known: Reading | None) -> Outcome:
    """Look at one job; what JobsRoot.read raises is returned."""
    try:
        return root.read(job_id, known)
    except (Absent, BadRecord, OSError) as outcome:
        # Its frames would keep everything they saw alive.
        return outcome.with_traceback(None)
