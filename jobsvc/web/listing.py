"""`GET /api/jobs`: the caller's jobs, newest first, a page at a time.

What it answers from is in memory: it is as old as `Age` says. Before every job has been looked at once it is
a 503: a list with holes, which nobody can tell from a whole one, is worse than none.
"""

from __future__ import annotations

import re
from time import monotonic
from typing import Final, NamedTuple

from aiohttp import web
from multidict import MultiMapping
from orjson import dumps

from jobsvc.domain.access import owner_seen
from jobsvc.domain.errors import BadRequest, StorageUnavailable
from jobsvc.domain.job import Status, parse_time
from jobsvc.index.listing import After
from jobsvc.index.live import Index
from jobsvc.web import document
from jobsvc.web.cursor import cursor_of, place_in
from jobsvc.web.gate import TOKEN
from jobsvc.web.representation import Fragments, entity_tag
from jobsvc.web.status import STALE

USUAL: Final = 50
MOST: Final = 200
"""Jobs of a page."""

_PARAMETERS: Final = ("status", "updatedSince", "limit", "cursor")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_SHOWN: Final = 64
"""Characters of what a client sent that an error gives back."""


class Wish(NamedTuple):
    """What a page is asked for."""

    statuses: frozenset[Status]
    """Empty for all."""
    updated_since: int | None
    """Microseconds since the epoch."""
    limit: int
    after: After | None


class ListRoute:
    """The route's handler and what it needs."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._fragments = Fragments()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD."""
        wish = wish_of(request.query)
        if not self._index.ready.is_set():
            raise StorageUnavailable("Not every job has been looked at yet since the service began.")
        owner = owner_seen(request[TOKEN])
        page = self._index.listing.page(
            owner,
            statuses=wish.statuses,
            updated_since=wish.updated_since,
            limit=wish.limit,
            after=wish.after,
        )
        jobs = list(map(self._fragments.of, page.readings))
        cursor = None if page.after is None else cursor_of(page.after)
        body = dumps({"jobs": jobs, "nextCursor": cursor})
        age = monotonic() - self._index.listing.as_of(page)
        return document.answer(request, body, self._fields(body, age))

    def _fields(self, body: bytes, age: float) -> dict[str, str]:
        fields = {
            "ETag": entity_tag(body),
            "Content-Type": "application/json",
            "Cache-Control": "private, no-cache",
            "Age": str(max(0, int(age))),
            "X-Content-Type-Options": "nosniff",
        }
        if self._index.storage_away is not None:
            fields["Cache-Status"] = STALE
        return fields


def wish_of(query: MultiMapping[str]) -> Wish:
    """Read the parameters; BadRequest, which names the one that makes no sense.

    An unknown one is refused: `state=failed`, overlooked, would list what was not asked for.
    """
    for name in query:
        if name not in _PARAMETERS:
            raise BadRequest(f"There is no parameter {_quoted(name)}, only {', '.join(_PARAMETERS)}.")
    return Wish(
        frozenset(map(_status, query.getall("status", ()))),
        _updated_since(_single(query, "updatedSince")),
        _limit(_single(query, "limit")),
        _after(_single(query, "cursor")),
    )


def _single(query: MultiMapping[str], name: str) -> str | None:
    values = query.getall(name, ())
    if len(values) > 1:
        raise BadRequest(f"{name} is given more than once.")
    return values[0] if values else None


def _status(word: str) -> Status:
    try:
        return Status(word)
    except ValueError as unknown:
        raise BadRequest(f"status: {_quoted(word)} is none of {', '.join(Status)}.") from unknown


def _updated_since(text: str | None) -> int | None:
    if text is None:
        return None
    # An offset's plus that was sent as it is has become a blank, and can't have been anything else.
    plain = f"{text[:-6]}+{text[-5:]}" if text[-6:-5] == " " else text
    try:
        return parse_time(plain)
    except ValueError as wrong:
        raise BadRequest(f"updatedSince: {_quoted(text)} is no RFC 3339 date-time.") from wrong


def _limit(text: str | None) -> int:
    if text is None:
        return USUAL
    if not _COUNT.fullmatch(text) or int(text) > MOST:
        raise BadRequest(f"limit: {_quoted(text)} is not a whole number from 1 to {MOST}.")
    return int(text)


def _after(cursor: str | None) -> After | None:
    if cursor is None:
        return None
    after = place_in(cursor)
    if after is None:
        raise BadRequest(f"cursor: {_quoted(cursor)} is none that this service gave.")
    return after


def _quoted(text: str) -> str:
    """Give back what a client sent: not too much of it, and nothing that JSON could not carry."""
    return repr(text[:_SHOWN])
