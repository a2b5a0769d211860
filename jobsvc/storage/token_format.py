"""What is written in the token file, version 1; pure.

{"version": 1, "tokens": [{"id", "owner", "scopes", "digest", "created", "expires", "revoked"}]}: the digest
is SHA-256 in hex, times are RFC 3339, `expires` and `revoked` may be null or left out. Secrets are nowhere.
What is unexpected is refused by name, an unknown key too: `expire`, misspelt, must not make a token eternal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from jobsvc.domain.access import SCOPES, Token
from jobsvc.domain.moment import format_time, parse_time

_KEYS: Final = frozenset({"id", "owner", "scopes", "digest", "created", "expires", "revoked"})
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OWNER_MAX: Final = 256


class BadTokens(ValueError):
    """Not what the file holds; the message says where it is wrong, and quotes no value."""


def parse_tokens(data: bytes) -> tuple[Token, ...]:
    """Read the file's bytes; BadTokens."""
    try:
        record = orjson.loads(data)
    except orjson.JSONDecodeError as wrong:
        raise BadTokens("not JSON") from wrong
    if not isinstance(record, dict):
        raise BadTokens("not an object")
    if type(record.get("version")) is not int or record["version"] != 1:
        raise BadTokens("version: not 1, the only one known here")
    if record.keys() != {"version", "tokens"} or not isinstance(record["tokens"], list):
        raise BadTokens("needs a list of tokens beside its version, and nothing else")
    tokens = tuple(_token(f"tokens[{place}]", entry) for place, entry in enumerate(record["tokens"]))
    for what, distinct in (
        ("id", {token.id for token in tokens}),
        ("digest", {token.digest for token in tokens}),
    ):
        if len(distinct) != len(tokens):
            raise BadTokens(f"two tokens have the same {what}")
    return tokens


def render_tokens(tokens: Iterable[Token]) -> bytes:
    """Write the file's bytes; times keep their milliseconds."""
    return orjson.dumps(
        {"version": 1, "tokens": [_entry(token) for token in tokens]},
        option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
    )


def check_owner(owner: str) -> str:
    """Return the owner, or raise BadTokens where the name can't be one: it is compared, logged, printed."""
    if not 0 < len(owner) <= _OWNER_MAX or not owner.isprintable():
        raise BadTokens(f"not a name of 1 to {_OWNER_MAX} printable characters")
    return owner


def _token(where: str, entry: object) -> Token:
    if not isinstance(entry, dict):
        raise BadTokens(f"{where}: not an object")
    if not entry.keys() <= _KEYS:
        raise BadTokens(f"{where}: has a key that is not one of {', '.join(sorted(_KEYS))}")
    created = _time(where, entry, "created")
    if created is None:
        raise BadTokens(f"{where}.created: missing")
    try:
        owner = check_owner(_text(where, entry, "owner"))
    except BadTokens as wrong:
        raise BadTokens(f"{where}.owner: {wrong}") from wrong
    return Token(
        id=_matching(where, entry, "id", _ID),
        owner=owner,
        scopes=_scopes(where, entry),
        digest=bytes.fromhex(_matching(where, entry, "digest", _DIGEST)),
        created=created,
        expires=_time(where, entry, "expires"),
        revoked=_time(where, entry, "revoked"),
    )


def _text(where: str, entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise BadTokens(f"{where}.{key}: not a string")
    return value


def _matching(where: str, entry: dict[str, Any], key: str, form: re.Pattern[str]) -> str:
    value = _text(where, entry, key)
    if form.fullmatch(value) is None:
        raise BadTokens(f"{where}.{key}: not of the form {form.pattern}")
    return value


def _scopes(where: str, entry: dict[str, Any]) -> frozenset[str]:
    value = entry.get("scopes")
    if not isinstance(value, list) or not all(scope in SCOPES for scope in value):
        raise BadTokens(f"{where}.scopes: not a list out of {', '.join(SCOPES)}")
    return frozenset(value)


def _time(where: str, entry: dict[str, Any], key: str) -> float | None:
    """Seconds since the epoch, or None where there is no such time."""
    if entry.get(key) is None:
        return None
    try:
        micros = parse_time(_text(where, entry, key))
    except ValueError as wrong:
        raise BadTokens(f"{where}.{key}: not an RFC 3339 date-time") from wrong
    if micros < 0:
        raise BadTokens(f"{where}.{key}: before 1970")
    return micros / 1e6


def _entry(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "owner": token.owner,
        "scopes": sorted(token.scopes),
        "digest": token.digest.hex(),
        "created": time_text(token.created),
        "expires": time_text(token.expires),
        "revoked": time_text(token.revoked),
    }


def time_text(seconds: float | None) -> str | None:
    """Write seconds since the epoch as RFC 3339, and none as none."""
    return None if seconds is None else format_time(round(seconds * 1000) * 1000)
