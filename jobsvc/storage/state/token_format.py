"""Parse and render the token file, format version 1, and the file of token labels. Pure.

{"version": 1, "tokens": [{"id", "owner", "scopes", "digest", "created", "expires", "revoked"}]}: `digest` is
SHA-256 in hex, times are RFC 3339, `expires` and `revoked` can be null or omitted. The file contains no
secrets. Unknown members, of the file or of a token, are ignored, and kept when the file is rewritten. A
member of a token that looks like a misspelt known one is rejected: `expire` must not make a token valid
forever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

import orjson

from jobsvc.domain.access import SCOPES, Token
from jobsvc.domain.timestamp import format_time, parse_time

_KEYS: Final = frozenset({"id", "owner", "scopes", "digest", "created", "expires", "revoked"})
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_NAME_LENGTH: Final = 256
_MAX_COMPARED_LENGTH: Final = 32
"""Maximum length of a key, in characters, that is compared with the known keys."""


class BadTokens(ValueError):
    """The data is not valid; the message says where, and quotes no value."""


def parse_tokens(data: bytes) -> tuple[Token, ...]:
    """Parse the token file; raises BadTokens."""
    record = _decoded(data)
    if type(record.get("version")) is not int or record["version"] != 1:
        raise BadTokens("version: not 1, the only supported version")
    if not isinstance(record.get("tokens"), list):
        raise BadTokens("tokens: not a list")
    tokens = tuple(_token(f"tokens[{place}]", entry) for place, entry in enumerate(record["tokens"]))
    for what, distinct in (
        ("id", {token.id for token in tokens}),
        ("digest", {token.digest for token in tokens}),
    ):
        if len(distinct) != len(tokens):
            raise BadTokens(f"two tokens have the same {what}")
    return tokens


def render_tokens(tokens: Iterable[Token], before: bytes | None = None) -> bytes:
    """Return the content of the token file; times are rounded to milliseconds.

    `before` is the valid content that is replaced: its unknown members are kept.
    """
    record = {} if before is None else _decoded(before)
    before_by_id = {entry["id"]: entry for entry in record.get("tokens", ())}
    entries = [{**before_by_id.get(token.id, {}), **_entry(token)} for token in tokens]
    return _encoded({**record, "version": 1, "tokens": entries})


def parse_labels(data: bytes) -> dict[str, str]:
    """Parse the file of labels, `{"<token id>": "<label>"}`; raises BadTokens."""
    record = _decoded(data)
    for label in record.values():
        if not isinstance(label, str):
            raise BadTokens("a label is not a string")
        check_name(label)
    return record


def render_labels(labels: Mapping[str, str]) -> bytes:
    """Return the content of the file of labels."""
    return _encoded(labels)


def check_name(name: str) -> str:
    """Return an owner or a label; raises BadTokens if it is invalid, since names are logged and printed."""
    if not 0 < len(name) <= _MAX_NAME_LENGTH or not name.isprintable():
        raise BadTokens(f"not a name of 1 to {_MAX_NAME_LENGTH} printable characters")
    return name


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        record = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadTokens("not JSON") from error
    if not isinstance(record, dict):
        raise BadTokens("not an object")
    return record


def _encoded(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _check_keys(where: str, keys: Iterable[str]) -> None:
    for key in keys:
        if key not in _KEYS and len(key) <= _MAX_COMPARED_LENGTH:
            meant = get_close_matches(key.lower(), _KEYS, n=1)
            if meant:
                raise BadTokens(f"{where}: has an unknown key that looks like {meant[0]!r}")


def _token(where: str, entry: object) -> Token:
    if not isinstance(entry, dict):
        raise BadTokens(f"{where}: not an object")
    _check_keys(where, entry)
    created = _time(where, entry, "created")
    if created is None:
        raise BadTokens(f"{where}.created: missing")
    try:
        owner = check_name(_text(where, entry, "owner"))
    except BadTokens as error:
        raise BadTokens(f"{where}.owner: {error}") from error
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
        raise BadTokens(f"{where}.{key}: does not match {form.pattern}")
    return value


def _scopes(where: str, entry: dict[str, Any]) -> frozenset[str]:
    value = entry.get("scopes")
    if not isinstance(value, list) or not all(scope in SCOPES for scope in value):
        raise BadTokens(f"{where}.scopes: not a list of {', '.join(SCOPES)}")
    return frozenset(value)


def _time(where: str, entry: dict[str, Any], key: str) -> float | None:
    """Return a time in seconds since the epoch; None if it is null or missing. Raises BadTokens."""
    if entry.get(key) is None:
        return None
    try:
        micros = parse_time(_text(where, entry, key))
    except ValueError as error:
        raise BadTokens(f"{where}.{key}: not an RFC 3339 date-time") from error
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
    """Return seconds since the epoch as RFC 3339 with milliseconds; None for None."""
    return None if seconds is None else format_time(round(seconds * 1000) * 1000)
