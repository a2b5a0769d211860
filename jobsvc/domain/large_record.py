"""Split a large status.json into its known members and its metadata, which is only passed on. No I/O."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from jobsvc.domain.json_text import on_one_line
from jobsvc.domain.record_decoding import METADATA, decode_record
from jobsvc.domain.status_record import KEYS


class SplitRecord(NamedTuple):
    """The parts of a record that are needed to build a job."""

    record: bytes
    """The known members as JSON; objects and lists among them are emptied."""
    metadata: bytes | None
    """The metadata as it was written, on one line; None if there is none."""


def split_record(text: bytes) -> SplitRecord:
    """Split a record; raises ValueError if it is not JSON."""
    record = decode_record(text)
    if not isinstance(record, dict):
        return SplitRecord(b"[]", None)
    known = {key: _emptied(record[key]) for key in KEYS if key in record}
    metadata = METADATA.last_object(text) if isinstance(known.get("metadata"), dict) else None
    return SplitRecord(orjson.dumps(known), None if metadata is None else on_one_line(metadata))


def _emptied(value: object) -> object:
    return type(value)() if isinstance(value, dict | list) else value
