"""A job as the farm wrote it: the checked content of one status.json (job directory format 1).

Wrong types are refused by name; unknown keys are ignored; a word for a status that nobody knows is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final


class Status(StrEnum):
    """The five states of a job."""

    QUEUED = "queued"
    RENDERING = "rendering"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        """Whether the farm is done with the job."""
        return self not in _UNFINISHED


_UNFINISHED: Final = frozenset({Status.QUEUED, Status.RENDERING})

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


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Times are RFC 3339 strings as the farm wrote them, but for `T` and `Z`, which readers need."""

    id: str
    owner: str
    status: Status
    progress: float
    """Percent, 0 to 100."""
    created_at: str
    updated_at: str
    created_order: int
    """createdAt as microseconds since the epoch, to sort by."""
    updated_order: int
    """updatedAt likewise."""
    source_status: str | None = None
    """The farm's own word, where it is not ours."""
    project_path: str | None = None
    output_path: str | None = None
    log_path: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    error: str | None = None
    phase: str | None = None
    frames_done: int | None = None
    frames_total: int | None = None
    attempt: int | None = None
    metadata: dict[str, Any] | None = None


METADATA_DEPTH: Final = 32
"""Deeper metadata is refused: it could be read but, past 254 levels, not be written again."""

# RFC 3339, section 5.6, date-time; the offset is compulsory, the separator and Z may be lower case.
_RFC3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d+))?([Zz]|[+-]\d{2}:[0-5]\d)", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_TIME: Final = -62_135_596_800_000_000
_LAST_TIME: Final = 253_402_300_799_999_999
"""Microseconds; RFC 3339 has years of four digits, a file's time any 64-bit number of seconds."""


def parse_time(text: str) -> int:
    """Turn an RFC 3339 date-time into microseconds since the epoch; ValueError if it is none.

    A leap second (RFC 3339, appendix D) counts as the last microsecond before it.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:64]!r} is no RFC 3339 date-time")
    date, clock, fraction, offset = match.groups()
    micros = (fraction or "")[:6].ljust(6, "0")
    if clock.endswith(":60"):
        clock, micros = clock[:-2] + "59", "999999"
    zone = "+00:00" if offset in {"Z", "z"} else offset
    moment = datetime.fromisoformat(f"{date}T{clock}.{micros}{zone}") - _EPOCH
    return (moment.days * 86_400 + moment.seconds) * 1_000_000 + moment.microseconds


def format_time(micros: int) -> str:
    """Write microseconds since the epoch, of the years 1 to 9999, as RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(micros // 1_000_000, UTC)
    return f"{moment.isoformat()[:19]}.{micros % 1_000_000 // 1000:03d}Z"


def parse_record(
    job_id: str, record: object, file_time: int, aliases: Mapping[str, Status] = SYNONYMS
) -> Job:
    """Check a decoded status.json and make a Job of it; BadRecord names what is wrong.

    `file_time` is the file's own time of modification in microseconds since the epoch; it stands in
    for times that the farm left out. `aliases` maps lower-case words to states.
    """
    if not isinstance(record, dict):
        raise BadRecord("the record is not an object")
    fields = _Fields(record)
    if fields.text("id", job_id) != job_id:
        raise BadRecord("id: differs from the directory's name")
    word = fields.needed("status")
    status = aliases.get(word.lower())
    if status is None:
        raise BadRecord(f"status: {word[:64]!r} is no known word")
    created, updated = fields.time("createdAt"), fields.time("updatedAt")
    if created is None or updated is None:
        file_time = min(max(file_time, _FIRST_TIME), _LAST_TIME)
        written = (format_time(file_time), file_time)
        created, updated = created or written, updated or written
    started, completed = fields.time("startedAt"), fields.time("completedAt")
    if completed == updated or (completed is None and status is Status.COMPLETED):
        completed = updated
    done, total = fields.count("framesDone"), fields.count("framesTotal")
    return Job(
        id=job_id,
        owner=_shared(fields.needed("owner")),
        status=status,
        progress=_progress(status, fields.number("progress"), done, total),
        created_at=created[0],
        updated_at=updated[0],
        created_order=created[1],
        updated_order=updated[1],
        source_status=None if word == status.value else _shared(word),
        project_path=fields.shared("projectPath"),
        output_path=fields.shared("outputPath"),
        log_path=fields.shared("logPath"),
        started_at=started and started[0],
        completed_at=completed and completed[0],
        error=fields.text("error"),
        phase=fields.shared("phase"),
        frames_done=done,
        frames_total=total,
        attempt=fields.count("attempt"),
        metadata=fields.metadata(),
    )


@lru_cache(maxsize=8192)
def _shared(text: str) -> str:
    """Return the one object for this text that other jobs hold too: most jobs repeat what others say."""
    return text


def _progress(status: Status, given: float | None, done: int | None, total: int | None) -> float:
    """Percent, held within 0 to 100: a farm that rounds past the end does not lose its job for it."""
    if status is Status.COMPLETED:
        return 100
    if given is None:
        given = 100 * (done or 0) // total if total else 0
    return min(max(given, 0), 100)


class _Fields:
    """Reads one decoded object key by key; null counts as left out, a wrong type is a BadRecord."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._record = record

    def text(self, key: str, default: str | None = None) -> str | None:
        value = self._record.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise BadRecord(f"{key}: not a string")
        return value

    def shared(self, key: str) -> str | None:
        text = self.text(key)
        return None if text is None else _shared(text)

    def needed(self, key: str) -> str:
        value = self.text(key)
        if not value:
            raise BadRecord(f"{key}: missing")
        return value

    def number(self, key: str) -> float | None:
        value = self._record.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRecord(f"{key}: not a number")
        return value

    def count(self, key: str) -> int | None:
        value = self.number(key)
        if value is None:
            return None
        if value != int(value) or not 0 <= value < 2**53:
            raise BadRecord(f"{key}: not a whole number from 0 up")
        return int(value)

    def time(self, key: str) -> tuple[str, int] | None:
        value = self.text(key)
        if value is None:
            return None
        try:
            micros = parse_time(value)
        except ValueError as wrong:
            raise BadRecord(f"{key}: {wrong}") from wrong
        return f"{value[:10]}T{value[11:].upper()}", micros

    def metadata(self) -> dict[str, Any] | None:
        value = self._record.get("metadata")
        if value is None:
            return None
        if not isinstance(value, dict):
            raise BadRecord("metadata: not an object")
        if _deeper(value, METADATA_DEPTH):
            raise BadRecord(f"metadata: nested deeper than {METADATA_DEPTH} levels")
        return value


def _deeper(value: object, levels: int) -> bool:
    """Whether lists and objects are nested more than `levels` deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(_deeper(item, levels - 1) for item in value)
