"""Remove secrets from values that are about to be logged.

Text that looks like a token, the value of an Authorization or Cookie header, or the signature of a link or a
session is replaced, at any depth of a value. This is only a safeguard: code must not log secrets at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

REDACTED: Final = "[redacted]"

_MAX_DEPTH: Final = 16
_SECRET_KEYS: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "sig", "signature"}
)

# The quotes and commas are those of a mapping or a pair as Python or JSON writes it.
# Possessive quantifiers, so that redacted text is not replaced again.
_FIELD: Final = re.compile(
    r"""((?:authorization|cookie)\\?+['"]?+\s*+[:=,]\s*+(?:b?\\?['"])?+)(?!\[redacted])[^\r\n'"\\]+""",
    re.IGNORECASE,
)
_BEARER: Final = re.compile(r"(bearer(?:\s|%20|\+)+)[A-Za-z0-9._~+/%=-]+", re.IGNORECASE)
_SIGNATURE: Final = re.compile(r"((?:[?&;]|%3F|%26|\b)sig(?:nature)?(?:=|%3D))[^&;\s'\"<>\\]+", re.IGNORECASE)
_SESSION: Final = re.compile(r"((?::|%3A)[1-9][0-9]{0,15}(?::|%3A))[A-Za-z0-9_-]{43}", re.IGNORECASE)
_TOKEN: Final = re.compile(r"jsvc_[A-Za-z0-9_-]+", re.IGNORECASE)


def redact_text(text: str) -> str:
    """Replace all secrets in a text."""
    text = _FIELD.sub(rf"\1{REDACTED}", text)
    text = _BEARER.sub(rf"\1{REDACTED}", text)
    text = _SIGNATURE.sub(rf"\1{REDACTED}", text)
    text = _SESSION.sub(rf"\1{REDACTED}", text)
    return _TOKEN.sub(f"jsvc_{REDACTED}", text)


def redact(value: object, depth: int = 0) -> object:
    """Replace all secrets in a value; anything but text, numbers and collections becomes its repr."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact_text(value)
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return redact_mapping(value, depth)
        if isinstance(value, list | tuple | AbstractSet):
            return [redact(each, depth + 1) for each in value]
    return redact_text(repr(value))


def redact_mapping(value: Mapping[Any, object], depth: int = 0) -> dict[str, object]:
    """Replace all secrets in a mapping's keys and values; a value is replaced if its key names a secret."""
    return {redact_text(str(key)): _of_key(key, each, depth) for key, each in value.items()}


def _of_key(key: object, value: object, depth: int) -> object:
    return REDACTED if str(key).lower() in _SECRET_KEYS else redact(value, depth + 1)
