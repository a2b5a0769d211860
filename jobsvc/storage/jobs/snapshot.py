"""Hold the result of a successful read of a job: its record and the file versions it came from. Pure."""

from __future__ import annotations

from typing import Self, TypeAlias

from jobsvc.domain.job import SYNONYMS, Job, intern_value
from jobsvc.domain.timestamp import Timestamp
from jobsvc.storage.files.file_version import PACKED_SIZE, FileVersion

SnapshotTuple: TypeAlias = tuple[str, str, float, Timestamp, Timestamp, str | None, bytes, bytes, bool]
"""A snapshot as plain values: seven of the job, both packed file versions, and `is_stable`."""


class JobSnapshot:
    """A job as read from its record, with the file versions of the record and of the output.

    Immutable by convention. There may be a million of these: both file versions are in one bytes object, and
    the class is not a frozen dataclass, because setting each field of one takes three times as long.
    """

    __slots__ = ("_versions", "is_stable", "job")

    def __init__(self, job: Job, record: bytes, output: bytes | None, *, is_stable: bool) -> None:
        """Take the file versions of the record and of the output, as FileVersion or packed."""
        self.job = job
        self._versions = bytes(record) if output is None else record + output
        self.is_stable = is_stable
        """Whether an equal record version later proves equal content."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobSnapshot) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._versions)

    @property
    def record_version(self) -> FileVersion:
        """The file version of the record."""
        return FileVersion.from_packed(self._versions[:PACKED_SIZE])

    @property
    def output_version(self) -> FileVersion | None:
        """The file version of the output; None unless the job is completed and its output can be opened."""
        output = self._versions[PACKED_SIZE:]
        return FileVersion.from_packed(output) if output else None

    @property
    def has_output(self) -> bool:
        """Whether the job has an output."""
        return len(self._versions) > PACKED_SIZE

    def to_tuple(self) -> SnapshotTuple:
        """Return the snapshot, without the job's id, as plain values to send to another process."""
        job = self.job
        return (
            job.owner, job.status.value, job.progress, job.created, job.updated, job.output_path,
            job.packed_details, self._versions, self.is_stable,
        )  # fmt: skip

    @classmethod
    def from_tuple(cls, job_id: str, parts: SnapshotTuple) -> Self:
        """Create the snapshot from the result of `to_tuple`."""
        owner, status, progress, created, updated, output_path, packed, versions, is_stable = parts
        job = Job(
            job_id, intern_value(owner), SYNONYMS[status], progress, created, updated,
            intern_value(output_path), packed,
        )  # fmt: skip
        return cls(job, versions, None, is_stable=is_stable)

    def with_job(self, job: Job) -> JobSnapshot:
        """Return the same snapshot with `job`, an equal job, in it."""
        return JobSnapshot(job, self.record_version, self.output_version, is_stable=self.is_stable)

    def _all(self) -> tuple[Job, bytes, bool]:
        return self.job, self._versions, self.is_stable
