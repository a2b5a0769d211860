"""Parse query parameters. Raises BadRequest, with the parameter's name, for an invalid or repeated one.

Only `status` can be repeated.
"""

from __future__ import annotations

import re
from typing import Final

from multidict import MultiMapping

from jobsvc.domain.errors import BadRequest
from jobsvc.domain.job import Status

_INTEGER: Final = re.compile("[0-9]{1,9}", re.ASCII)
# A JSON number (RFC 8259, section 6).
_NUMBER: Final = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_MAX_QUOTED_LENGTH: Final = 64
"""Characters of a client's input that an error message quotes."""


def reject_unknown(query: MultiMapping[str], *names: str) -> None:
    """Raise BadRequest if there is any other parameter: ignoring a misspelt one gives an unexpected result.

    If `?wiat=30` were ignored, a client that waits for a change would become a busy loop.
    """
    for name in query:
        if name not in names:
            allowed = ", ".join(names) or "none"
            raise BadRequest(f"Unknown query parameter {quote(name)}. Supported here: {allowed}.")


def get_text(query: MultiMapping[str], name: str) -> str | None:
    """Return the text of a parameter; None if it is absent."""
    values = query.getall(name, ())
    if len(values) > 1:
        raise BadRequest(f"{name} is given more than once.")
    return values[0] if values else None


def get_statuses(query: MultiMapping[str]) -> frozenset[Status]:
    """Return the requested states; an empty set means all."""
    return frozenset(map(_status, query.getall("status", ())))


def get_int(query: MultiMapping[str], name: str, maximum: int, *, minimum: int = 0) -> int | None:
    """Return a whole number from `minimum` to `maximum`; None if the parameter is absent."""
    text = get_text(query, name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text) or not minimum <= int(text) <= maximum:
        raise BadRequest(f"{name}: {quote(text)} is not an integer from {minimum} to {maximum}.")
    return int(text)


def get_seconds(query: MultiMapping[str], name: str, maximum: int) -> float | None:
    """Return a number of seconds from 0 to `maximum`; None if the parameter is absent."""
    text = get_text(query, name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or float(text) > maximum:
        raise BadRequest(f"{name}: {quote(text)} is not a number of seconds from 0 to {maximum}.")
    return float(text)


def get_flag(query: MultiMapping[str], name: str) -> bool:
    """Return whether an option is on: 1 is on, 0 or an absent parameter is off."""
    text = get_text(query, name)
    if text not in {None, "0", "1"}:
        raise BadRequest(f"{name}: {quote(text or '')} is neither 0 nor 1.")
    return text == "1"


def quote(text: str) -> str:
    """Quote a client's input for an error message: shortened, and without anything that JSON cannot carry."""
    return repr(text[:_MAX_QUOTED_LENGTH])


def _status(word: str) -> Status:
    try:
        return Status(word)
    except ValueError as exc:
        raise BadRequest(f"status: {quote(word)} is not one of {', '.join(Status)}.") from exc
