"""Decode the bytes of a status.json into the object that parse_record checks. No I/O."""

from __future__ import annotations

import json
from typing import Final, Never

import orjson

from jobsvc.domain.json_text import MemberText

METADATA: Final = MemberText("metadata")


def decode_record(text: bytes) -> object:
    """Decode a record; raises ValueError if it is not JSON.

    orjson refuses some JSON that a farm can have in its metadata: numbers like 1e400 and lone surrogates.
    Such metadata is returned as an empty object, because metadata is never decoded for a client.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        bare = _without_metadata(text)
        if bare is None:
            raise
        try:
            return orjson.loads(bare)
        except orjson.JSONDecodeError:
            raise error from None


def _without_metadata(text: bytes) -> bytes | None:
    """Return the record with its metadata emptied; None if it is not a JSON object with metadata."""
    try:
        record = json.loads(text.decode(), parse_int=_skip, parse_float=_skip, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    pieces, position = [], 0
    for start, end in METADATA.spans(text):
        if text.startswith(b"{", start):
            pieces += [text[position:start], b"{}"]
            position = end
    return b"".join([*pieces, text[position:]]) if pieces else None


def _skip(_number: str) -> None:
    """Accept any number without converting it: some are too large."""


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")
