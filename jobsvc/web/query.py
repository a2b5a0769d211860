"""What a request's query says: each parameter once at most; BadRequest names what makes no sense."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from jobsvc.domain.errors import BadRequest
from jobsvc.domain.job import Status

_WHOLE: Final = re.compile("[0-9]{1,9}", re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


def only(request: web.Request, *names: str) -> None:
    """Refuse every other parameter: a misspelt one, overlooked, would give what was not asked for."""
    for name in request.query:
        if name not in names:
            raise BadRequest(f"There is no parameter {name[:64]!r}, only {', '.join(names)}.")


def statuses(request: web.Request) -> frozenset[Status]:
    """Read the states that are asked for; none means all."""
    words = request.query.getall("status", ())
    try:
        return frozenset(map(Status, words))
    except ValueError as unknown:
        raise BadRequest(f"status is none of {', '.join(Status)}.") from unknown


def whole(request: web.Request, name: str, most: int) -> int | None:
    """Read a whole number from 0 to `most`; None where the parameter is not there."""
    text = _one(request, name)
    if text is None:
        return None
    if not _WHOLE.fullmatch(text) or int(text) > most:
        raise BadRequest(f"{name} is not a whole number from 0 to {most}.")
    return int(text)


def seconds(request: web.Request, name: str, most: int) -> float | None:
    """Read a number of seconds from 0 to `most`, whole or decimal; None where the parameter is not there."""
    text = _one(request, name)
    if text is None:
        return None
    if not _DECIMAL.fullmatch(text) or float(text) > most:
        raise BadRequest(f"{name} is not a number of seconds from 0 to {most}.")
    return float(text)


def switch(request: web.Request, name: str) -> bool:
    """Read whether something is wished for: 1 is yes, 0 or nothing no."""
    text = _one(request, name)
    if text not in {None, "0", "1"}:
        raise BadRequest(f"{name} is neither 0 nor 1.")
    return text == "1"


def _one(request: web.Request, name: str) -> str | None:
    values = request.query.getall(name, ())
    if len(values) > 1:
        raise BadRequest(f"{name} is there more than once.")
    return values[0] if values else None
