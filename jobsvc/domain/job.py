"""Define a job as its record describes it: its state, its owner and what clients see of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

import orjson

from jobsvc.domain.output_list import pack_outputs, plain_outputs, unpack_outputs
from jobsvc.domain.outputs import Output
from jobsvc.domain.timestamp import Timestamp, format_timestamp, to_microseconds

T = TypeVar("T")


_CACHED_BYTES: Final = 4096
"""Packed details up to this size are cached after they are unpacked."""
_SEPARATOR: Final = b"\n"
"""A byte that JSON written without indentation does not contain."""
_HAS_OUTPUTS: Final = b" "
"""The first byte of packed details with outputs: space before JSON is ignored."""


class Status(StrEnum):
    """The five states of a job."""

    QUEUED = "queued"
    RENDERING = "rendering"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    # Jobs are counted and sorted by status, and Enum.__hash__ runs in Python each time.
    __hash__ = str.__hash__

    def __init__(self, word: str) -> None:
        self.final = word not in {"queued", "rendering"}
        """Whether the farm has finished with the job."""


SYNONYMS: Final[Mapping[str, Status]] = MappingProxyType(
    {status.value: status for status in Status}
    | dict.fromkeys(("pending", "waiting", "created"), Status.QUEUED)
    | dict.fromkeys(("running", "active", "in_progress", "processing"), Status.RENDERING)
    | dict.fromkeys(("done", "finished", "success", "succeeded"), Status.COMPLETED)
    | dict.fromkeys(("error", "errored"), Status.FAILED)
    | dict.fromkeys(("cancelled", "aborted"), Status.CANCELED)
)


class Details(NamedTuple):
    """Fields of a job that are needed only to show it; those that most jobs lack are last."""

    project_path: str | None = None
    """The project that is rendered."""
    started_at: str | None = None
    """Time when rendering started."""
    completed_at: str | None = None
    """Time when the job ended."""
    frames_done: int | None = None
    """Number of finished frames."""
    frames_total: int | None = None
    """Number of frames of the whole job."""
    attempt: int | None = None
    """Number of the current attempt."""
    phase: str | None = None
    """The current step of the work."""
    estimated_completion_at: str | None = None
    """Time when the farm expects the job to be completed."""
    error: str | None = None
    """Why the job failed."""
    source_status: str | None = None
    """The farm's word for the status, if it differs from the service's."""
    log_path: str | None = None
    """The path of the log, if it is not the default."""


@dataclass(slots=True)
class Job:
    """One job; never modified. There can be a million jobs, so rarely used fields are packed.

    Times are RFC 3339 strings as the farm wrote them, except for `T` and `Z`, which readers need: they
    replace a space or a lower-case letter.
    """

    id: str
    owner: str
    status: Status
    progress: float
    """Percent, 0 to 100."""
    created: Timestamp
    updated: Timestamp
    output_path: str | None
    packed_details: bytes
    """The details as a JSON array, then the outputs and the metadata, each after a line feed.

    If the job has no metadata, it is left out. So are outputs that follow from `output_path`; otherwise the
    first byte is a space.
    """

    @property
    def created_order(self) -> int:
        """Time when the farm accepted the job, in microseconds since the epoch; a sort key."""
        return to_microseconds(self.created)

    @property
    def updated_order(self) -> int:
        """Time of the farm's last update, in microseconds since the epoch; a sort key."""
        return to_microseconds(self.updated)

    @property
    def created_at(self) -> str:
        """Time when the farm accepted the job."""
        return format_timestamp(self.created)

    @property
    def updated_at(self) -> str:
        """Time of the farm's last update."""
        return format_timestamp(self.updated)

    @property
    def details(self) -> Details:
        """The fields that are needed only to show the job."""
        head = self.packed_details.partition(_SEPARATOR)[0]
        return (_unpack_cached if len(head) <= _CACHED_BYTES else _unpack)(head)

    @property
    def metadata_json(self) -> bytes | None:
        """The farm's own data: a JSON object as the farm wrote it, without line breaks."""
        rest = self.packed_details.partition(_SEPARATOR)[2]
        return (rest.partition(_SEPARATOR)[2] if self.lists_outputs else rest) or None

    @property
    def lists_outputs(self) -> bool:
        """Whether the record names outputs besides the one at `output_path`, or describes that one."""
        return self.packed_details.startswith(_HAS_OUTPUTS)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs that the record names, in its order; they need not exist."""
        if not self.lists_outputs:
            return plain_outputs(self.output_path)
        return unpack_outputs(self.packed_details.split(_SEPARATOR, 2)[1])

    @property
    def output_paths(self) -> list[str]:
        """The paths of `outputs`."""
        if self.lists_outputs:
            return [output.path for output in self.outputs]
        return [self.output_path] if self.output_path else []


def pack_details(
    details: Details, metadata: bytes | None = None, outputs: Sequence[Output] | None = None
) -> bytes:
    """Pack the details, the outputs and the metadata, whose JSON must not contain a line feed.

    The encoder's result is copied, because it can have spare capacity.
    """
    values = list(details)
    while values and values[-1] is None:
        values.pop()
    head = orjson.dumps(values)
    listed = None if outputs is None else pack_outputs(outputs)
    if listed is not None:
        head = b"".join((_HAS_OUTPUTS, head, _SEPARATOR, listed))
    return bytes(memoryview(head)) if metadata is None else b"".join((head, _SEPARATOR, metadata))


def _unpack(head: bytes) -> Details:
    return Details(*orjson.loads(head))


_unpack_cached: Final = lru_cache(maxsize=64)(_unpack)


@lru_cache(maxsize=8192)
def intern_value(value: T) -> T:
    """Return one shared object for equal values: most jobs repeat the values of others."""
    return value
