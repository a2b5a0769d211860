"""`GET /api/jobs`: list the jobs that the caller can see, newest first, in pages.

The list is served from memory; `Age` gives its age. Until every job has been read once the response is 503,
because a partial list cannot be told from a complete one.
"""

from __future__ import annotations

import asyncio
from time import monotonic, perf_counter
from typing import Final, NamedTuple

from aiohttp import web
from multidict import MultiMapping
from orjson import dumps

from jobsvc.domain.access import ADMIN, is_admin, require, visible_owner
from jobsvc.domain.errors import BadRequest, StorageUnavailable
from jobsvc.domain.job import Status
from jobsvc.domain.timestamp import parse_time
from jobsvc.index.job_index import JobIndex
from jobsvc.index.queries.listing import After
from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.jobs.list_items import LARGE_BYTES, ListItem, ListItemCaches
from jobsvc.web.jobs.page_cursor import format_cursor, parse_cursor
from jobsvc.web.jobs.representation import entity_tag
from jobsvc.web.responses import json_response

PARAMETERS: Final = ("status", "owner", "stalled", "updatedSince", "limit", "cursor")
MAX_OWNERS: Final = 100
"""Maximum number of different owners in one request."""
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
"""Jobs per page."""
MAX_PAGE_BYTES: Final = 1 << 20
"""Maximum bytes of a page's jobs as JSON; a single job may be larger."""
SLICE_S: Final = 0.001
"""Seconds spent on rendering pages before the event loop runs other requests."""


class ListQuery(NamedTuple):
    """The parsed query parameters of a list request."""

    statuses: frozenset[Status]
    """Empty for all."""
    owners: frozenset[str]
    """Empty for all that the token can see."""
    stalled: bool
    """Whether only stalled jobs are listed."""
    updated_since: int | None
    """Microseconds since the epoch."""
    limit: int
    after: After | None


class JobListEndpoint:
    """Handler of `GET /api/jobs` and its dependencies."""

    def __init__(self, index: JobIndex, list_items: ListItemCaches) -> None:
        self._index = index
        self._list_items = list_items
        self._turn = asyncio.Lock()
        """Held while a page is rendered."""
        self._spent = 0.0
        """Seconds spent on pages since the event loop last ran other requests."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD."""
        query = parse_query(request.query)
        if query.owners:
            require(request[TOKEN], ADMIN)
        if not self._index.ready.is_set():
            raise StorageUnavailable("The service has not read every job yet since its start.")
        async with self._turn:
            if self._spent >= SLICE_S:
                await asyncio.sleep(0)
                self._spent = 0.0
            started_at = perf_counter()
            response = self._answer(request, query)
            self._spent += perf_counter() - started_at
            return response

    def _answer(self, request: web.Request, query: ListQuery) -> web.StreamResponse:
        owner = visible_owner(request[TOKEN])
        page = self._index.listing.page(
            owner,
            owners=query.owners,
            statuses=query.statuses,
            stalled=query.stalled,
            updated_since=query.updated_since,
            limit=query.limit,
            after=query.after,
        )
        page, elements = self._list_items.of(request).fit(
            page, MAX_PAGE_BYTES, with_owner=is_admin(request[TOKEN])
        )
        cursor = None if page.after is None else format_cursor(page.after)
        end = b'],"nextCursor":%b}' % dumps(cursor)
        body = pieces([element.json for element in elements], end)
        etag = entity_tag(body[0] if len(body) == 1 else _identity(elements, end))
        fields = json_response.index_fields(
            etag,
            max(0.0, monotonic() - self._index.listing.valid_at(page)),
            stale=self._index.storage_unavailable_reason is not None,
            unreadable=self._index.listing.has_unreadable(page),
        )
        return json_response.respond(request, body, fields)


def pieces(elements: list[bytes], end: bytes) -> tuple[bytes, ...]:
    """Join the JSON of a page's jobs; the JSON of large jobs is shared by all responses, not copied."""
    result: list[bytes] = []
    small = [b'{"jobs":[']
    for number, element in enumerate(elements):
        if number:
            small.append(b",")
        if len(element) < LARGE_BYTES:
            small.append(element)
        else:
            result += b"".join(small), element
            small = []
    return *result, b"".join([*small, end])


def _identity(elements: list[ListItem], end: bytes) -> bytes:
    """Return the data that the entity tag of a page with large jobs is computed from."""
    return b",".join([element.identity for element in elements]) + end


def parse_query(parameters: MultiMapping[str]) -> ListQuery:
    """Parse the query parameters. Raises BadRequest, naming the invalid parameter."""
    return ListQuery(
        query_params.get_statuses(parameters),
        _owners(parameters),
        _stalled(query_params.get_text(parameters, "stalled")),
        _updated_since(query_params.get_text(parameters, "updatedSince")),
        query_params.get_int(parameters, "limit", MAX_LIMIT, minimum=1) or DEFAULT_LIMIT,
        _after(query_params.get_text(parameters, "cursor")),
    )


def _owners(parameters: MultiMapping[str]) -> frozenset[str]:
    owners = frozenset(parameters.getall("owner", ()))
    if "" in owners:
        raise BadRequest("owner: the name of an owner cannot be empty.")
    if len(owners) > MAX_OWNERS:
        raise BadRequest(f"owner: {len(owners)} owners, more than the maximum of {MAX_OWNERS}.")
    return owners


def _stalled(text: str | None) -> bool:
    if text not in {None, "true"}:
        raise BadRequest(
            f"stalled: {query_params.quote(text or '')} is not true. Leave it out to list all jobs."
        )
    return text is not None


def _updated_since(text: str | None) -> int | None:
    if text is None:
        return None
    # The plus of a UTC offset that was not percent-encoded has been decoded as a space.
    plain = f"{text[:-6]}+{text[-5:]}" if text[-6:-5] == " " else text
    try:
        return parse_time(plain)
    except ValueError as exc:
        raise BadRequest(f"updatedSince: {query_params.quote(text)} is not an RFC 3339 date-time.") from exc


def _after(cursor: str | None) -> After | None:
    if cursor is None:
        return None
    after = parse_cursor(cursor)
    if after is None:
        raise BadRequest(f"cursor: {query_params.quote(cursor)} is not a nextCursor of this service.")
    return after
