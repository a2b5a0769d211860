"""Parse query parameters. Raises BadRequest, with the parameter's name, for an invalid or repeated one.

Only `status` can be repeated.
"""

from __future__ import annotations

import re
from typing import Final

from multidict import MultiMapping

from jobsvc.domain.errors import BadRequest
from jobsvc.domain.job import Status

_WHOLE: Final = re.compile("[0-9]{1,9}", re.ASCII)
# A JSON number (RFC 8259, section 6).
_NUMBER: Final = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_SHOWN: Final = 64
"""Characters of a client's input that an error message quotes."""


def only(query: MultiMapping[str], *names: str) -> None:
    """Raise BadRequest if there is any other parameter: ignoring a misspelt one gives an unexpected result.

    If `?wiat=30` were ignored, a client that waits for a change would become a busy loop.
    """
    for name in query:
        if name not in names:
            known = ", ".join(names) or "none"
            raise BadRequest(f"Unknown query parameter {quoted(name)}; known here: {known}.")


def one(query: MultiMapping[str], name: str) -> str | None:
    """Return the text of a parameter; None if it is absent."""
    values = query.getall(name, ())
    if len(values) > 1:
        raise BadRequest(f"{name} is given more than once.")
    return values[0] if values else None


def statuses(query: MultiMapping[str]) -> frozenset[Status]:
    """Return the requested states; an empty set means all."""
    return frozenset(map(_status, query.getall("status", ())))


def whole(query: MultiMapping[str], name: str, most: int, *, least: int = 0) -> int | None:
    """Return a whole number from `least` to `most`; None if the parameter is absent."""
    text = one(query, name)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise BadRequest(f"{name}: {quoted(text)} is not a whole number from {least} to {most}.")
    return int(text)


def seconds(query: MultiMapping[str], name: str, most: int) -> float | None:
    """Return a number of seconds from 0 to `most`; None if the parameter is absent."""
    text = one(query, name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or float(text) > most:
        raise BadRequest(f"{name}: {quoted(text)} is not a number of seconds from 0 to {most}.")
    return float(text)


def switch(query: MultiMapping[str], name: str) -> bool:
    """Return whether an option is on: 1 is on, 0 or an absent parameter is off."""
    text = one(query, name)
    if text not in {None, "0", "1"}:
        raise BadRequest(f"{name}: {quoted(text or '')} is neither 0 nor 1.")
    return text == "1"


def quoted(text: str) -> str:
    """Quote a client's input for an error message: shortened, and without anything that JSON cannot carry."""
    return repr(text[:_SHOWN])


def _status(word: str) -> Status:
    try:
        return Status(word)
    except ValueError as unknown:
        raise BadRequest(f"status: {quoted(word)} is none of {', '.join(Status)}.") from unknown
