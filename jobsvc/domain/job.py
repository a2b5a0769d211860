"""A job as its record says: its state, whose it is, and what is shown of it."""

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
"""Details of up to this size are remembered for a while once they are unpacked."""
_SEPARATOR: Final = b"\n"
"""No JSON that is written without indentation has it."""


class Status(StrEnum):
    """The five states of a job."""

    QUEUED = "queued"
    RENDERING = "rendering"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    # Jobs are counted and sorted by it: an enumeration's own hash is computed in Python, each time.
    __hash__ = str.__hash__

    def __init__(self, word: str) -> None:
        self.final = word not in {"queued", "rendering"}
        """Whether the farm is done with the job."""


SYNONYMS: Final[Mapping[str, Status]] = MappingProxyType(
    {status.value: status for status in Status}
    | dict.fromkeys(("pending", "waiting", "created"), Status.QUEUED)
    | dict.fromkeys(("running", "active", "in_progress", "processing"), Status.RENDERING)
    | dict.fromkeys(("done", "finished", "success", "succeeded"), Status.COMPLETED)
    | dict.fromkeys(("error", "errored"), Status.FAILED)
    | dict.fromkeys(("cancelled", "aborted"), Status.CANCELED)
)


class Details(NamedTuple):
    """What of a job is only asked for where it is shown; what most jobs lack comes last."""

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
    """One job, never changed. There may be a million: what is asked for seldom lies packed.

    Times are RFC 3339 strings as the farm wrote them, but for `T` and `Z`, which readers need.
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
    """The details as a JSON array; if the job has metadata, then a line feed and the metadata's JSON."""

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
        """Make one again of the values of its fields; what jobs share, it shares with others."""
        owned, output = intern_value(owner), intern_value(output_path)
        return cls(job_id, owned, SYNONYMS[word], progress, created, updated, output, packed)

    @property
    def created_order(self) -> int:
        """When the farm took the job on, as microseconds since the epoch, to sort by."""
        return to_microseconds(self.created)

    @property
    def updated_order(self) -> int:
        """When it last said something of it, likewise."""
        return to_microseconds(self.updated)

    @property
    def created_at(self) -> str:
        """When the farm took the job on."""
        return format_timestamp(self.created)

    @property
    def updated_at(self) -> str:
        """When it last said something of it."""
        return format_timestamp(self.updated)

    def details(self) -> list[Any]:
        """Unpack what Details has, but for what lacks at its end: for who shows the whole job."""
        found: list[Any] = orjson.loads(self.packed_details.partition(_SEPARATOR)[0])
        return found

    @property
    def metadata_json(self) -> bytes | None:
        """Anything of the farm's: a JSON object as the farm wrote it, without line ends."""
        return self.packed_details.partition(_SEPARATOR)[2] or None

    @property
    def started_at(self) -> str | None:
        """When work on it began."""
        return _unpack_details(self.packed_details).started_at

    @property
    def completed_at(self) -> str | None:
        """When it ended."""
        return _unpack_details(self.packed_details).completed_at

    @property
    def source_status(self) -> str | None:
        """The farm's own word, where it is not ours."""
        return _unpack_details(self.packed_details).source_status

    @property
    def project_path(self) -> str | None:
        """What is rendered."""
        return _unpack_details(self.packed_details).project_path

    @property
    def error(self) -> str | None:
        """Why it failed."""
        return _unpack_details(self.packed_details).error

    @property
    def phase(self) -> str | None:
        """What is being done just now."""
        return _unpack_details(self.packed_details).phase

    @property
    def frames_done(self) -> int | None:
        """How many frames there are."""
        return _unpack_details(self.packed_details).frames_done

    @property
    def frames_total(self) -> int | None:
        """How many there are to be."""
        return _unpack_details(self.packed_details).frames_total

    @property
    def attempt(self) -> int | None:
        """Which try this is."""
        return _unpack_details(self.packed_details).attempt

    @property
    def log_path(self) -> str | None:
        """Where its log is, if not in the usual place."""
        return _unpack_details(self.packed_details).log_path


def pack_details(details: list[object], metadata: bytes | None = None) -> bytes:
    """Pack what Details has, in its order, and metadata, whose JSON has no line feed.

    The details are copied, since what the encoder gives may have room to spare.
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
    """Return the one object of this value that other jobs hold too: most jobs repeat what others say."""
    return value
