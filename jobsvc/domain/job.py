"""A job as the farm wrote it: the checked content of one status.json (job directory format 1).

Wrong types are refused by name; unknown keys are ignored; a word for a status that nobody knows is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self, TypeVar

import orjson

from jobsvc.domain.moment import (
    Moment,
    checked,
    format_time,
    micros_of,
    moment_at,
    moment_of,
    parse_time,
    text_of,
)

__all__ = [
    "METADATA_DEPTH",
    "SYNONYMS",
    "BadRecord",
    "Job",
    "Status",
    "format_time",
    "parse_record",
    "parse_time",
]

T = TypeVar("T")

METADATA_DEPTH: Final = 32
"""Deeper metadata is refused: it could be read but, past 254 levels, not be written again."""


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


class BadRecord(ValueError):
    """A status.json that can't be taken for a job; the message names the key and what is wrong with it."""


class Details(NamedTuple):
    """What of a job is only asked for where it is shown; what most jobs lack comes last."""

    project_path: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    frames_done: int | None = None
    frames_total: int | None = None
    attempt: int | None = None
    metadata: dict[str, Any] | None = None
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
    created: Moment
    updated: Moment
    output_path: str | None
    packed: bytes
    """The details, as JSON."""

    @classmethod
    def of_parts(  # noqa: PLR0917 - in the order of its fields
        cls,
        job_id: str,
        owner: str,
        word: str,
        progress: float,
        created: Moment,
        updated: Moment,
        output_path: str | None,
        packed: bytes,
    ) -> Self:
        """Make one again of the values of its fields; what jobs share, it shares with others."""
        owned, output = _shared(owner), _shared(output_path)
        return cls(job_id, owned, SYNONYMS[word], progress, created, updated, output, packed)

    @property
    def created_order(self) -> int:
        """When the farm took the job on, as microseconds since the epoch, to sort by."""
        return micros_of(self.created)

    @property
    def updated_order(self) -> int:
        """When it last said something of it, likewise."""
        return micros_of(self.updated)

    @property
    def created_at(self) -> str:
        """When the farm took the job on."""
        return text_of(self.created)

    @property
    def updated_at(self) -> str:
        """When it last said something of it."""
        return text_of(self.updated)

    @property
    def details(self) -> Details:
        """What is packed, all at once: for who shows the whole job."""
        return _unpacked(self.packed)

    @property
    def started_at(self) -> str | None:
        """When work on it began."""
        return _unpacked(self.packed).started_at

    @property
    def completed_at(self) -> str | None:
        """When it ended."""
        return _unpacked(self.packed).completed_at

    @property
    def source_status(self) -> str | None:
        """The farm's own word, where it is not ours."""
        return _unpacked(self.packed).source_status

    @property
    def project_path(self) -> str | None:
        """What is rendered."""
        return _unpacked(self.packed).project_path

    @property
    def error(self) -> str | None:
        """Why it failed."""
        return _unpacked(self.packed).error

    @property
    def phase(self) -> str | None:
        """What is being done just now."""
        return _unpacked(self.packed).phase

    @property
    def frames_done(self) -> int | None:
        """How many frames there are."""
        return _unpacked(self.packed).frames_done

    @property
    def frames_total(self) -> int | None:
        """How many there are to be."""
        return _unpacked(self.packed).frames_total

    @property
    def attempt(self) -> int | None:
        """Which try this is."""
        return _unpacked(self.packed).attempt

    @property
    def log_path(self) -> str | None:
        """Where its log is, if not in the usual place."""
        return _unpacked(self.packed).log_path

    @property
    def metadata(self) -> dict[str, Any] | None:
        """Anything of the farm's; not to be changed."""
        return _unpacked(self.packed).metadata


def _packed(details: list[object]) -> bytes:
    """Pack what Details has, in its order; copied, since what the encoder gives may have room to spare."""
    while details and details[-1] is None:
        details.pop()
    return bytes(memoryview(orjson.dumps(details)))


@lru_cache(maxsize=64)
def _unpacked(packed: bytes) -> Details:
    return Details(*orjson.loads(packed))


def parse_record(
    job_id: str, record: object, file_time: int, aliases: Mapping[str, Status] = SYNONYMS
) -> Job:
    """Check a decoded status.json and make a Job of it; BadRecord names what is wrong.

    `file_time` is the file's own time of modification in microseconds since the epoch; it stands in
    for times that the farm left out. `aliases` maps lower-case words to states.
    """
    if not isinstance(record, dict):
        raise BadRecord("the record is not an object")
    (
        named, word, owner, created_at, updated_at, started_at, completed_at,
        project_path, output_path, log_path, error, phase,
    ) = _texts(record)  # fmt: skip
    if named is not None and named != job_id:
        raise BadRecord("id: differs from the directory's name")
    word = _needed("status", word)
    status = aliases.get(word) or aliases.get(word.lower())
    if status is None:
        raise BadRecord(f"status: {word[:64]!r} is no known word")
    created = _checked("createdAt", created_at, moment_of)
    updated = _checked("updatedAt", updated_at, moment_of)
    if updated is None:
        updated = moment_at(file_time)
    completed = _checked("completedAt", completed_at, checked)
    if completed is None and status is Status.COMPLETED:
        completed = text_of(updated)
    started = _checked("startedAt", started_at, checked)
    done, total = _count(record, "framesDone"), _count(record, "framesTotal")
    packed = _packed(
        [
            project_path, started, completed, done, total, _count(record, "attempt"), _metadata(record),
            phase, error, None if word == status.value else word, log_path,
        ]
    )  # fmt: skip
    return Job(
        job_id,
        _shared(_needed("owner", owner)),
        status,
        _progress(status, _number(record, "progress"), done, total),
        moment_at(file_time) if created is None else created,
        updated,
        _shared(output_path),
        packed,
    )


@lru_cache(maxsize=8192)
def _shared(value: T) -> T:
    """Return the one object of this value that other jobs hold too: most jobs repeat what others say."""
    return value


def _progress(status: Status, given: float | None, done: int | None, total: int | None) -> float:
    """Percent, held within 0 to 100: a farm that rounds past the end does not lose its job for it."""
    if status is Status.COMPLETED:
        return 100
    if given is None:
        given = 100 * (done or 0) // total if total else 0
    return min(max(given, 0), 100)


_NUMBER: Final = (int, float)
_FLAT: Final = frozenset({str, int, float, bool, type(None)})
_COUNTS_END: Final = 2**53
"""Larger numbers are not whole in every reader's arithmetic."""

# What takes keys out of the decoded object: null counts as left out, a wrong type is a BadRecord.


_TEXTS: Final = (
    *("id", "status", "owner", "createdAt", "updatedAt", "startedAt", "completedAt"),
    *("projectPath", "outputPath", "logPath", "error", "phase"),
)
"""The keys of what is text."""
_TEXT_OR_NULL: Final = frozenset({str, type(None)})


def _texts(record: dict[str, Any]) -> list[str | None]:
    """Take them all at once: one by one takes three times as long, and there may be a million records."""
    found = list(map(record.get, _TEXTS))
    if not _TEXT_OR_NULL.issuperset(map(type, found)):
        for key, value in zip(_TEXTS, found, strict=True):
            if value is not None and not isinstance(value, str):
                raise BadRecord(f"{key}: not a string")
    return found


def _needed(key: str, value: str | None) -> str:
    if not value:
        raise BadRecord(f"{key}: missing")
    return value


def _number(record: dict[str, Any], key: str) -> float | None:
    value = record.get(key)
    return None if value is None else _checked_number(key, value)


def _checked_number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, _NUMBER):
        raise BadRecord(f"{key}: not a number")
    return value


def _count(record: dict[str, Any], key: str) -> int | None:
    value = record.get(key)
    if value is None or (type(value) is int and 0 <= value < _COUNTS_END):
        return value
    value = _checked_number(key, value)
    if value != int(value) or not 0 <= value < _COUNTS_END:
        raise BadRecord(f"{key}: not a whole number from 0 up")
    return int(value)


def _checked(key: str, value: str | None, check: Callable[[str], T]) -> T | None:
    if value is None:
        return None
    try:
        return check(value)
    except ValueError as wrong:
        raise BadRecord(f"{key}: {wrong}") from wrong


def _metadata(record: dict[str, Any]) -> dict[str, Any] | None:
    value = record.get("metadata")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadRecord("metadata: not an object")
    if _deeper(value.values(), METADATA_DEPTH):
        raise BadRecord(f"metadata: nested deeper than {METADATA_DEPTH} levels")
    return value


def _deeper(values: Collection[object], levels: int) -> bool:
    """Whether lists and objects, of which these are the values of one, are nested more than `levels` deep."""
    if _FLAT.issuperset(map(type, values)):
        return False
    for value in values:
        if isinstance(value, dict | list):
            inner = value.values() if isinstance(value, dict) else value
            if levels == 1 or _deeper(inner, levels - 1):
                return True
    return False
