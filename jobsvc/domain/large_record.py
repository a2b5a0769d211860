"""Split a large status.json into its known members and its metadata, which is only passed on. No I/O."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from jobsvc.domain.json_text import on_one_line
from jobsvc.domain.output_list import MEMBERS
from jobsvc.domain.outputs import MAX_OUTPUTS
from jobsvc.domain.record_decoding import METADATA, decode_record
from jobsvc.domain.status_record import KEYS


class SplitRecord(NamedTuple):
    """The parts of a record that are needed to build a job."""

    record: bytes
    """The known members as JSON; objects and lists among them are emptied, except for the outputs."""
    metadata: bytes | None
    """The metadata as it was written, on one line; None if there is none."""


def split_record(text: bytes) -> SplitRecord:
    """Split a record; raises ValueError if it is not JSON."""
    record = decode_record(text)
    if not isinstance(record, dict):
        return SplitRecord(b"[]", None)
    known = {key: _emptied(record[key]) for key in KEYS if key in record}
    if isinstance(outputs := record.get("outputs"), list):
        known["outputs"] = list(map(_known_members, outputs[: MAX_OUTPUTS + 1]))  # one too many is an error
    metadata = METADATA.last_object(text) if isinstance(known.get("metadata"), dict) else None
    return SplitRecord(orjson.dumps(known), None if metadata is None else on_one_line(metadata))


def _known_members(output: object) -> object:
    if not isinstance(output, dict):
        return _emptied(output)
    return {key: _emptied(output[key]) for key in MEMBERS if key in output}


def _emptied(value: object) -> object:
    return type(value)() if isinstance(value, dict | list) else value
