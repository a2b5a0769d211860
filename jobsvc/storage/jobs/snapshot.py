"""What one good look at a job gives: its record, and which versions of its files that rests on. Pure."""

from __future__ import annotations

from typing import Self, TypeAlias

from jobsvc.domain.job import Job
from jobsvc.domain.timestamp import Timestamp
from jobsvc.storage.files.file_version import PACKED_SIZE, FileVersion

SnapshotTuple: TypeAlias = tuple[str, str, float, Timestamp, Timestamp, str | None, bytes, bytes, bool]
"""A reading in plain values: seven of its job, both versions in one string, whether it is settled."""


class JobSnapshot:
    """One good look at a job: its record, the version of the file, and that of the output.

    Never changed. There may be a million: both versions lie in one string, and nothing is frozen field by
    field, which takes three times as long.
    """

    __slots__ = ("_versions", "is_stable", "job")

    def __init__(self, job: Job, identity: bytes, output: bytes | None, *, settled: bool) -> None:
        """Take an Identity for `identity`, and for `output`, or the bytes of one."""
        self.job = job
        self._versions = bytes(identity) if output is None else identity + output
        self.is_stable = settled
        """Whether the same identity later proves the same content."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobSnapshot) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._versions)

    @property
    def record_version(self) -> FileVersion:
        """The version of the record's file."""
        return FileVersion.from_packed(self._versions[:PACKED_SIZE])

    @property
    def output_version(self) -> FileVersion | None:
        """Of a completed job whose output is a regular file that we may open; None for any other job."""
        output = self._versions[PACKED_SIZE:]
        return FileVersion.from_packed(output) if output else None

    @property
    def has_output(self) -> bool:
        """Whether there is an output."""
        return len(self._versions) > PACKED_SIZE

    def to_tuple(self) -> SnapshotTuple:
        """Give all of it in plain values, the job's id apart: for another process."""
        job = self.job
        return (
            job.owner, job.status.value, job.progress, job.created, job.updated, job.output_path,
            job.packed_details, self._versions, self.is_stable,
        )  # fmt: skip

    @classmethod
    def from_tuple(cls, job_id: str, parts: SnapshotTuple) -> Self:
        """Make what gave these."""
        owner, word, progress, created, updated, output_path, packed, versions, settled = parts
        job = Job.of_parts(job_id, owner, word, progress, created, updated, output_path, packed)
        return cls(job, versions, None, settled=settled)

    def of(self, job: Job) -> JobSnapshot:
        """Say the same of an equal job."""
        return JobSnapshot(job, self.record_version, self.output_version, settled=self.is_stable)

    def _all(self) -> tuple[Job, bytes, bool]:
        return self.job, self._versions, self.is_stable
