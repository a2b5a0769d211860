"""What `jobsvc check` finds: job directories that clients can't be served from, and how the others look."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from jobsvc.domain.job import Status
from jobsvc.domain.record import BadRecord
from jobsvc.index.folders import needed
from jobsvc.storage.reader import JobsRoot
from jobsvc.storage.reading import Reading
from jobsvc.storage.walk import Absent


@dataclass(frozen=True, slots=True)
class Finding:
    """One job directory that needs its farm's attention."""

    job: str
    code: str
    """bad-record, record-missing, output-missing or storage."""
    reason: str


class Survey:
    """Looks at jobs one by one, and counts."""

    def __init__(self, root: JobsRoot) -> None:
        self._root = root
        self.found = 0
        self.directories = 0
        """How many would be watched."""
        self._kept = 0

    @property
    def kept(self) -> float | None:
        """Seconds to which the storage keeps times, as far as the times of the records tell."""
        for step in (10**9, 10**6, 1000, 100, 1):
            if self._kept and self._kept % step == 0:
                return step / 1e9
        return None

    def examine(self, job_id: str) -> Finding | None:
        """Read a job as the service reads it."""
        self.directories += 1
        finding = self._examine(job_id)
        self.found += finding is not None
        return finding

    def _examine(self, job_id: str) -> Finding | None:
        try:
            reading = self._root.read(job_id)
        except Absent:
            return Finding(job_id, "record-missing", "status.json: missing, or not a regular file")
        except BadRecord as wrong:
            return Finding(job_id, "bad-record", str(wrong))
        except OSError as wrong:
            return Finding(job_id, "storage", f"storage: {wrong.strerror}")
        self.directories += len(needed(reading) or ())
        # The time of change, which nobody can set; a time of modification may be one that an archive had.
        self._kept = gcd(self._kept, reading.identity.ctime_ns)
        return _of_output(reading)


def _of_output(reading: Reading) -> Finding | None:
    job = reading.job
    if reading.made or job.status is not Status.COMPLETED:
        return None
    if job.output_path is None:
        return Finding(job.id, "output-missing", "outputPath: missing, though the job is completed")
    return Finding(
        job.id,
        "output-missing",
        f"outputPath: {job.output_path[:200]!r} leads to no regular file that may be served",
    )
