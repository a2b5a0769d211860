"""The content of one status.json, checked (job directory format 1).

Wrong types are refused by name; unknown keys are ignored; a word for a status that nobody knows is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import orjson

from jobsvc.domain.job import SYNONYMS, Job, Status, intern_value, pack_details
from jobsvc.domain.json_text import on_one_line
from jobsvc.domain.record_decoding import METADATA
from jobsvc.domain.timestamp import format_timestamp, normalize, parse_timestamp, timestamp_at

T = TypeVar("T")


class BadRecord(ValueError):
    """A status.json that can't be taken for a job; the message names the key and what is wrong with it."""


def parse_record(
    job_id: str,
    record: object,
    file_time: int,
    aliases: Mapping[str, Status] = SYNONYMS,
    *,
    text: bytes | None = None,
    metadata: bytes | None = None,
    created_time: Callable[[], int] | None = None,
) -> Job:
    """Check a decoded status.json and make a Job of it; BadRecord names what is wrong.

    `text` is what it was decoded from: metadata is taken from there as it was written, else encoded anew.
    `metadata` is its text where the record was condensed.
    `created_time` gives what stands in for createdAt if the farm left that out; by default `file_time`.
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
    created = _checked("createdAt", created_at, parse_timestamp)
    if created is None:
        created = timestamp_at(file_time if created_time is None else created_time())
    updated = _checked("updatedAt", updated_at, parse_timestamp)
    if updated is None:
        updated = timestamp_at(file_time)
    completed = _checked("completedAt", completed_at, normalize)
    if completed is None and status is Status.COMPLETED:
        completed = format_timestamp(updated)
    started = _checked("startedAt", started_at, normalize)
    done, total = _count(record, "framesDone"), _count(record, "framesTotal")
    details = pack_details(
        [
            project_path, started, completed, done, total, _count(record, "attempt"),
            phase, error, None if word == status.value else word, log_path,
        ],
        _metadata(record, text, metadata),
    )  # fmt: skip
    return Job(
        job_id,
        intern_value(_needed("owner", owner)),
        status,
        _progress(status, _number(record, "progress"), done, total),
        created,
        updated,
        intern_value(output_path),
        details,
    )


def _progress(status: Status, given: float | None, done: int | None, total: int | None) -> float:
    """Percent, held within 0 to 100: a farm that rounds past the end does not lose its job for it.

    What is computed from frames is at most 99: with all frames rendered a job may have work left.
    """
    if status is Status.COMPLETED:
        return 100
    if given is None:
        given = min(100 * (done or 0) // total, 99) if total else 0
    return min(max(given, 0), 100)


_NUMBER: Final = (int, float)
_COUNTS_END: Final = 2**53
"""Larger numbers are not whole in every reader's arithmetic."""

# What takes keys out of the decoded object: null counts as left out, a wrong type is a BadRecord.


_TEXTS: Final = (
    *("id", "status", "owner", "createdAt", "updatedAt", "startedAt", "completedAt"),
    *("projectPath", "outputPath", "logPath", "error", "phase"),
)
"""The keys of what is text."""
KEYS: Final = (*_TEXTS, "progress", "framesDone", "framesTotal", "attempt", "metadata")
"""All keys that are known."""
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


def _metadata(record: dict[str, Any], text: bytes | None, metadata: bytes | None) -> bytes | None:
    value = record.get("metadata")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadRecord("metadata: not an object")
    if metadata is not None:
        return metadata
    found = orjson.dumps(value) if text is None else METADATA.last_object(text)
    return None if found is None else on_one_line(found)
