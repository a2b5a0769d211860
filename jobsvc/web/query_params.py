"""What a request's query says: each parameter once at most; BadRequest names what makes no sense."""

from __future__ import annotations

import re
from typing import Final

from multidict import MultiMapping

from jobsvc.domain.errors import BadRequest
from jobsvc.domain.job import Status

_WHOLE: Final = re.compile("[0-9]{1,9}", re.ASCII)
# A number as JSON has it (RFC 8259, section 6).
_NUMBER: Final = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_SHOWN: Final = 64
"""Characters of what a client sent that an error gives back."""


def only(query: MultiMapping[str], *names: str) -> None:
    """Refuse every other parameter: a misspelt one, overlooked, would give what was not asked for.

    With `?wiat=30` ignored, a client that waits for a change would become a busy loop.
    """
    for name in query:
        if name not in names:
            known = ", ".join(names) or "none"
            raise BadRequest(f"Unknown query parameter {quoted(name)}; known here: {known}.")


def one(query: MultiMapping[str], name: str) -> str | None:
    """Read a parameter as it is; None where it is not there."""
    values = query.getall(name, ())
    if len(values) > 1:
        raise BadRequest(f"{name} is given more than once.")
    return values[0] if values else None


def statuses(query: MultiMapping[str]) -> frozenset[Status]:
    """Read the states that are asked for; none means all."""
    return frozenset(map(_status, query.getall("status", ())))


def whole(query: MultiMapping[str], name: str, most: int, *, least: int = 0) -> int | None:
    """Read a whole number from `least` to `most`; None where the parameter is not there."""
    text = one(query, name)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise BadRequest(f"{name}: {quoted(text)} is not a whole number from {least} to {most}.")
    return int(text)


def seconds(query: MultiMapping[str], name: str, most: int) -> float | None:
    """Read a number of seconds from 0 to `most`; None where the parameter is not there."""
    text = one(query, name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or float(text) > most:
        raise BadRequest(f"{name}: {quoted(text)} is not a number of seconds from 0 to {most}.")
    return float(text)


def switch(query: MultiMapping[str], name: str) -> bool:
    """Read whether something is wished for: 1 is yes, 0 or nothing no."""
    text = one(query, name)
    if text not in {None, "0", "1"}:
        raise BadRequest(f"{name}: {quoted(text or '')} is neither 0 nor 1.")
    return text == "1"


def quoted(text: str) -> str:
    """Give back what a client sent: not too much of it, and nothing that JSON could not carry."""
    return repr(text[:_SHOWN])


def _status(word: str) -> Status:
    try:
        return Status(word)
    except ValueError as unknown:
        raise BadRequest(f"status: {quoted(word)} is none of {', '.join(Status)}.") from unknown
