"""Encode any value as one line of JSON, so that no log line is lost because of its content."""

from __future__ import annotations

import json

import orjson


def encode(value: object) -> bytes:
    r"""Encode `value` as JSON without a line break; objects that JSON cannot represent become their repr.

    A file name that is not UTF-8 contains lone surrogates, which orjson refuses: they are escaped as \udcXX.
    """
    try:
        return orjson.dumps(value, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # orjson's JSONEncodeError: surrogates, integers over 64 bits, too deep
        return json.dumps(value, default=repr, skipkeys=True).encode("ascii")
