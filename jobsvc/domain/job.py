"""Define a job as its record describes it: its state, its owner and what clients see of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self, TypeVar

import orjson

from jobsvc.domain.timestamp import Timestamp, format_timestamp, to_microseconds

T = TypeVar("T")


_CACHED_BYTES: Final = 4096
"""Packed details up to this size are cached after they are unpacked."""
_SEPARATOR: Final = b"\n"
"""A byte that JSON written without indentation does not contain."""


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
    started_at: str | None = None
    completed_at: str | None = None
    frames_done: int | None = None
    frames_total: int | None = None
    attempt: int | None = None
    phase: str | None = None
    error: str | None = None
    source_status: str | None = None
    log_path: str | None = None


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
    """The details as a JSON array; if the job has metadata, followed by a line feed and its JSON."""

    @classmethod
    def of_parts(  # noqa: PLR0917 - in the order of its fields
        cls,
        job_id: str,
        owner: str,
        word: str,
        progress: float,
        created: Timestamp,
        updated: Timestamp,
        output_path: str | None,
        packed: bytes,
    ) -> Self:
        """Rebuild a job from the values of its fields; owner and output path are interned."""
        owned, output = intern_value(owner), intern_value(output_path)
        return cls(job_id, owned, SYNONYMS[word], progress, created, updated, output, packed)

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

    def details(self) -> list[Any]:
        """Return the values of Details in order, without those missing at the end."""
        found: list[Any] = orjson.loads(self.packed_details.partition(_SEPARATOR)[0])
        return found

    @property
    def metadata_json(self) -> bytes | None:
        """The farm's own data: a JSON object as the farm wrote it, without line breaks."""
        return self.packed_details.partition(_SEPARATOR)[2] or None

    @property
    def started_at(self) -> str | None:
        """Time when rendering started."""
        return _unpack_details(self.packed_details).started_at

    @property
    def completed_at(self) -> str | None:
        """Time when the job ended."""
        return _unpack_details(self.packed_details).completed_at

    @property
    def source_status(self) -> str | None:
        """The farm's word for the status, if it differs from the service's."""
        return _unpack_details(self.packed_details).source_status

    @property
    def project_path(self) -> str | None:
        """The project that is rendered."""
        return _unpack_details(self.packed_details).project_path

    @property
    def error(self) -> str | None:
        """Why the job failed."""
        return _unpack_details(self.packed_details).error

    @property
    def phase(self) -> str | None:
        """The current step of the work."""
        return _unpack_details(self.packed_details).phase

    @property
    def frames_done(self) -> int | None:
        """The number of finished frames."""
        return _unpack_details(self.packed_details).frames_done

    @property
    def frames_total(self) -> int | None:
        """The number of frames of the whole job."""
        return _unpack_details(self.packed_details).frames_total

    @property
    def attempt(self) -> int | None:
        """The number of the current attempt."""
        return _unpack_details(self.packed_details).attempt

    @property
    def log_path(self) -> str | None:
        """The path of the log, if it is not the default."""
        return _unpack_details(self.packed_details).log_path


def pack_details(details: list[object], metadata: bytes | None = None) -> bytes:
    """Pack the values of Details, in order, and the metadata, whose JSON must not contain a line feed.

    Modifies `details`. The encoder's result is copied, because it can have spare capacity.
    """
    while details and details[-1] is None:
        details.pop()
    head = orjson.dumps(details)
    return bytes(memoryview(head)) if metadata is None else b"".join((head, _SEPARATOR, metadata))


def _unpack_details(packed: bytes) -> Details:
    head = packed.partition(_SEPARATOR)[0]
    return _details(head) if len(head) <= _CACHED_BYTES else Details(*orjson.loads(head))


@lru_cache(maxsize=64)
def _details(head: bytes) -> Details:
    return Details(*orjson.loads(head))


@lru_cache(maxsize=8192)
def intern_value(value: T) -> T:
    """Return one shared object for equal values: most jobs repeat the values of others."""
    return value
