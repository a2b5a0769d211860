"""Check the content of one status.json (job directory format 1).

A wrong type is refused with the name of its key; unknown keys are ignored; an unknown status word is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import orjson

from jobsvc.domain.job import SYNONYMS, Details, Job, Status, intern_value, pack_details
from jobsvc.domain.json_text import on_one_line
from jobsvc.domain.output_list import parse_outputs, path_of_main
from jobsvc.domain.outputs import Output
from jobsvc.domain.record_decoding import METADATA
from jobsvc.domain.timestamp import format_timestamp, normalize, parse_timestamp, timestamp_at

T = TypeVar("T")
V = TypeVar("V")


class BadRecord(ValueError):
    """A status.json that is not a valid job; the message names the key and what is wrong with it."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
        """The wrong key, "not-an-object", "not-json", "too-large" or "denied"; never text of the record."""


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
    """Check a decoded status.json and build a Job; raises BadRecord, which names what is wrong.

    `text` is the JSON that `record` was decoded from: metadata is copied from it as written; without `text`
    it is encoded again. `metadata` is the metadata's text if the record was split.
    `file_time` is the file's modification time in microseconds since the epoch; it replaces times that are
    missing in the record. `created_time` returns the replacement for createdAt; by default `file_time`.
    `aliases` maps lower-case words to states.
    """
    if not isinstance(record, dict):
        raise BadRecord("the record is not an object", "not-an-object")
    (
        given_id, word, owner, created_at, updated_at, started_at, completed_at, estimated_at,
        project_path, output_path, log_path, error, phase,
    ) = _texts(record)  # fmt: skip
    if given_id is not None and given_id != job_id:
        raise _bad_value("id", "differs from the directory's name")
    word = _required("status", word)
    status = aliases.get(word) or aliases.get(word.lower())
    if status is None:
        raise _bad_value("status", f"{word[:64]!r} is not a known status")
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
    estimated = _checked("estimatedCompletionAt", estimated_at, normalize)
    done, total = _count(record, "framesDone"), _count(record, "framesTotal")
    outputs: tuple[Output, ...] | None = None
    if (listed := record.get("outputs")) is not None:
        outputs = _checked("outputs", listed, lambda value: parse_outputs(value, output_path))
        output_path = output_path or path_of_main(outputs)
    details = Details(
        project_path=project_path,
        started_at=started,
        completed_at=completed,
        frames_done=done,
        frames_total=total,
        attempt=_count(record, "attempt"),
        phase=phase,
        estimated_completion_at=estimated,
        error=error,
        source_status=None if word == status.value else word,
        log_path=log_path,
    )
    return Job(
        job_id,
        intern_value(_required("owner", owner)),
        status,
        _progress(status, _number(record, "progress"), done, total),
        created,
        updated,
        intern_value(output_path),
        pack_details(details, _metadata(record, text, metadata), outputs),
    )


def _progress(status: Status, given: float | None, done: int | None, total: int | None) -> float:
    """Return the progress in percent, limited to 0 to 100: a farm's rounding does not make a job invalid.

    A value computed from frames is at most 99: after all frames are rendered, work can remain.
    """
    if status is Status.COMPLETED:
        return 100
    if given is None:
        given = min(100 * (done or 0) // total, 99) if total else 0
    return min(max(given, 0), 100)


_NUMBER: Final = (int, float)
_COUNTS_END: Final = 2**53
"""Counts must be below this; larger integers are not exact in every reader's arithmetic."""

# Functions that read keys of the decoded object: null counts as missing, a wrong type raises BadRecord.


_TEXTS: Final = (
    *("id", "status", "owner", "createdAt", "updatedAt", "startedAt", "completedAt"),
    "estimatedCompletionAt",
    *("projectPath", "outputPath", "logPath", "error", "phase"),
)
"""The keys whose values are strings."""
KEYS: Final = (*_TEXTS, "progress", "framesDone", "framesTotal", "attempt", "outputs", "metadata")
"""All known keys."""
_TEXT_OR_NULL: Final = frozenset({str, type(None)})


def _texts(record: dict[str, Any]) -> list[str | None]:
    """Return the values of _TEXTS, checked all at once.

    One by one takes three times as long, and there can be a million records.
    """
    values = list(map(record.get, _TEXTS))
    if not _TEXT_OR_NULL.issuperset(map(type, values)):
        for key, value in zip(_TEXTS, values, strict=True):
            if value is not None and not isinstance(value, str):
                raise _bad_value(key, "not a string")
    return values


def _bad_value(key: str, problem: str) -> BadRecord:
    return BadRecord(f"{key}: {problem}", key)


def _required(key: str, value: str | None) -> str:
    if not value:
        raise _bad_value(key, "missing")
    return value


def _number(record: dict[str, Any], key: str) -> float | None:
    value = record.get(key)
    return None if value is None else _checked_number(key, value)


def _checked_number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, _NUMBER):
        raise _bad_value(key, "not a number")
    return value


def _count(record: dict[str, Any], key: str) -> int | None:
    value = record.get(key)
    if value is None or (type(value) is int and 0 <= value < _COUNTS_END):
        return value
    value = _checked_number(key, value)
    if value != int(value) or not 0 <= value < _COUNTS_END:
        raise _bad_value(key, "not a non-negative integer")
    return int(value)


def _checked(key: str, value: V | None, check: Callable[[V], T]) -> T | None:
    if value is None:
        return None
    try:
        return check(value)
    except ValueError as error:
        raise _bad_value(key, str(error)) from error


def _metadata(record: dict[str, Any], text: bytes | None, metadata: bytes | None) -> bytes | None:
    value = record.get("metadata")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _bad_value("metadata", "not an object")
    if metadata is not None:
        return metadata
    member = orjson.dumps(value) if text is None else METADATA.last_object(text)
    return None if member is None else on_one_line(member)
