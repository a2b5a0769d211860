"""Hold the result of a successful read of a job: its record and the file versions it came from. Pure."""

from __future__ import annotations

from typing import Self, TypeAlias

from jobsvc.domain.job import SYNONYMS, Job, intern_value
from jobsvc.domain.outputs import Output, OutputKind
from jobsvc.domain.timestamp import Timestamp
from jobsvc.storage.files.file_version import PACKED_SIZE, FileVersion
from jobsvc.storage.jobs import output_states
from jobsvc.storage.jobs.output_states import OutputState, pack_states, unpack_states

SnapshotTuple: TypeAlias = tuple[
    str, str, float, Timestamp, Timestamp, str | None, bytes, bytes, bytes | None, bool
]
"""A snapshot as plain values: seven of the job, the packed versions, and `is_stable`."""


class JobSnapshot:
    """A job as read from its record, with the file versions of the record and of the output.

    Immutable by convention. There may be a million of these: both file versions are in one bytes object, and
    the class is not a frozen dataclass, because setting each field of one takes three times as long.
    """

    __slots__ = ("_versions", "is_stable", "job", "packed_outputs")

    def __init__(
        self, job: Job, record: bytes, output: bytes | None, *, is_stable: bool, outputs: bytes | None = None
    ) -> None:
        """Take the file versions of the record and of the main output, as FileVersion or packed.

        `output` is None unless the main output is a file. `outputs` is the result of `pack_states`.
        """
        self.job = job
        self.packed_outputs = outputs
        """The states of all outputs; None if the job has no output besides the file `output`."""
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
        """The file version of the main output; None unless the job is completed and it is a file."""
        output = self._versions[PACKED_SIZE:]
        return FileVersion.from_packed(output) if output else None

    @property
    def has_output(self) -> bool:
        """Whether the job has a main output, of any kind."""
        if len(self._versions) > PACKED_SIZE:
            return True
        return self.packed_outputs is not None and output_states.main_kind(self.packed_outputs) is not None

    @property
    def main_kind(self) -> OutputKind | None:
        """The kind of the main output; None if the job has none."""
        if self.packed_outputs is not None:
            return output_states.main_kind(self.packed_outputs)
        return OutputKind.FILE if len(self._versions) > PACKED_SIZE else None

    @property
    def states(self) -> list[OutputState | None]:
        """What each output is on disk, in the order of Job.outputs; None for one that does not exist."""
        if self.packed_outputs is not None:
            return unpack_states(self.packed_outputs)
        version = self.output_version
        return [OutputState(OutputKind.FILE, version)] if version else [None] * len(self.job.outputs)

    def existing_outputs(self) -> list[tuple[Output, OutputState]]:
        """Return the outputs that exist, in the order of Job.outputs."""
        pairs = zip(self.job.outputs, self.states, strict=True)
        return [(output, state) for output, state in pairs if state is not None]

    @property
    def kinds(self) -> bytes:
        """The kinds of all outputs; only for comparing snapshots of one job."""
        if self.packed_outputs is not None:
            return output_states.kinds(self.packed_outputs)
        return b"file" if len(self._versions) > PACKED_SIZE else b""

    @property
    def lacks_output(self) -> bool:
        """Whether an output is missing, or the record names none."""
        return not self.has_output if self.packed_outputs is None else 0 in self.kinds

    def has_versions(self, output: bytes | None, outputs: bytes | None) -> bool:
        """Return whether the outputs are these; takes the same values as the constructor."""
        return self.output_version == output and self.packed_outputs == outputs

    def has_same_outputs(self, other: JobSnapshot) -> bool:
        """Return whether all outputs are the same versions as in `other`."""
        return self.has_versions(other.output_version, other.packed_outputs)

    def lost_output(self, known: JobSnapshot) -> bool:
        """Return whether an output that `known` has is missing here; both jobs name the same outputs."""
        if self.packed_outputs is None and known.packed_outputs is None:
            return known.has_output and not self.has_output
        pairs = zip(self.states, known.states, strict=True)
        return any(here is None and before is not None for here, before in pairs)

    def with_outputs_of(self, known: JobSnapshot) -> JobSnapshot:
        """Return the snapshot with the missing outputs as they are in `known`, of the same job."""
        job, output = self.job, self.output_version
        if not self.has_output:
            output = known.output_version
        outputs = None
        if self.packed_outputs is not None or known.packed_outputs is not None:
            pairs = zip(self.states, known.states, strict=True)
            outputs = pack_states(job.outputs, [here or before for here, before in pairs])
        return JobSnapshot(job, self.record_version, output, is_stable=self.is_stable, outputs=outputs)

    def to_tuple(self) -> SnapshotTuple:
        """Return the snapshot, without the job's id, as plain values to send to another process."""
        job = self.job
        return (
            job.owner, job.status.value, job.progress, job.created, job.updated, job.output_path,
            job.packed_details, self._versions, self.packed_outputs, self.is_stable,
        )  # fmt: skip

    @classmethod
    def from_tuple(cls, job_id: str, parts: SnapshotTuple) -> Self:
        """Create the snapshot from the result of `to_tuple`."""
        (
            owner, status, progress, created, updated, output_path, packed, versions, outputs, is_stable,
        ) = parts  # fmt: skip
        job = Job(
            job_id, intern_value(owner), SYNONYMS[status], progress, created, updated,
            intern_value(output_path), packed,
        )  # fmt: skip
        return cls(job, versions, None, is_stable=is_stable, outputs=outputs)

    def with_job(self, job: Job) -> JobSnapshot:
        """Return the same snapshot with `job`, an equal job, in it."""
        return JobSnapshot(
            job,
            self.record_version,
            self.output_version,
            is_stable=self.is_stable,
            outputs=self.packed_outputs,
        )

    def _all(self) -> tuple[Job, bytes, bytes | None, bool]:
        return self.job, self._versions, self.packed_outputs, self.is_stable
