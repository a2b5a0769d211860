"""One value as one line of JSON, whatever the value holds: a line about trouble is never lost to it."""

from __future__ import annotations

import json

import orjson


def encode(value: object) -> bytes:
    r"""Write `value` as JSON without a line break; what JSON has no form for becomes its repr.

    A file name that is not UTF-8 holds lone surrogates, which orjson refuses: they are escaped as \udcXX.
    """
    try:
        return orjson.dumps(value, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # orjson's JSONEncodeError: surrogates, integers over 64 bits, too deep
        return json.dumps(value, default=repr, skipkeys=True).encode("ascii")
