"""Render jobs as JSON for the list and for `GET /api/events`, with a cache limited in jobs and bytes.

The JSON has no log tail, which would have to be read for each failed job, and no digest: both endpoints
respond from memory, and only a check on disk can tell whether a digest is still that of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from hashlib import blake2b
from typing import Final, NamedTuple

import orjson
from aiohttp import web

from jobsvc.index.queries.listing import After, Page
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.jobs.representation import add_owner, render_job
from jobsvc.web.jobs.urls import came_by_proxy, job_base

MAX_CACHED_JOBS: Final = 4096
MAX_CACHED_BYTES: Final = 16 << 20
LARGE_BYTES: Final = 4096
"""JSON of a job from this size on is hashed once, and not copied for each response."""


class ListItem(NamedTuple):
    """A job of a list."""

    json: bytes
    identity: bytes
    """The input for a page's entity tag: the JSON or, for a large job, a digest of it."""


class FittedPage(NamedTuple):
    """As much of a page as fits into a number of bytes."""

    page: Page
    elements: list[ListItem]
    """One for each of the page's jobs."""


class ListItemCache:
    """Render jobs as JSON, and cache it for recently requested jobs."""

    def __init__(
        self,
        base_of: Callable[[str], str],
        stalled: Container[str] = (),
        *,
        max_jobs: int = MAX_CACHED_JOBS,
        max_bytes: int = MAX_CACHED_BYTES,
    ) -> None:
        """`base_of` returns the prefix of a job's URLs for its id; `stalled` has the ids of stalled jobs."""
        self._base_of = base_of
        self._stalled = stalled
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._size = 0
        self._cached: dict[str, tuple[JobSnapshot, bool, ListItem]] = {}

    def json_of(self, snapshot: JobSnapshot, *, with_owner: bool = False) -> bytes:
        """Return the JSON of a job; `with_owner` for `admin` tokens."""
        return (self._with_owner if with_owner else self._cached_element)(snapshot).json

    def _with_owner(self, snapshot: JobSnapshot) -> ListItem:
        element = self._cached_element(snapshot)
        json = add_owner(element.json, snapshot.job.owner)
        if len(element.json) < LARGE_BYTES:
            return ListItem(json, json)
        return ListItem(json, _digest(element.identity + json[len(element.json) - 1 :]))

    def _cached_element(self, snapshot: JobSnapshot) -> ListItem:
        known, stalled = self._cached.get(snapshot.job.id), snapshot.job.id in self._stalled
        if known is not None:
            if known[0] is snapshot and known[1] is stalled:
                return known[2]
            self._size -= len(known[2].json)
        json = orjson.dumps(render_job(snapshot, self._base_of(snapshot.job.id), stalled=stalled))
        if len(self._cached) >= self._max_jobs or self._size + len(json) > self._max_bytes:
            self._cached.clear()
            self._size = 0
        self._size += len(json)
        element = ListItem(json, json if len(json) < LARGE_BYTES else _digest(json))
        self._cached[snapshot.job.id] = (snapshot, stalled, element)
        return element

    def fit(self, page: Page, max_bytes: int, *, with_owner: bool = False) -> FittedPage:
        """Shorten a page so that its jobs have at most `max_bytes`; the first job is always kept."""
        element_of = self._with_owner if with_owner else self._cached_element
        elements: list[ListItem] = []
        size = 0
        for element in map(element_of, page.snapshots):
            size += len(element.json)
            if elements and size > max_bytes:
                kept = page.snapshots[: len(elements)]
                return FittedPage(page._replace(snapshots=kept, after=_position(kept[-1])), elements)
            elements.append(element)
        return FittedPage(page, elements)


class ListItemCaches:
    """Two caches of the same jobs; in one of them, URLs are relative to `/api/jobs` and `/api/events`."""

    def __init__(self, public_url: str = "", stalled: Container[str] = ()) -> None:
        """Let URLs start with `public_url`; if it is set, both caches are the same."""
        self._usual = ListItemCache(partial(job_base, public_url), stalled)
        self._relative = self._usual if public_url else ListItemCache("jobs/{}/".format, stalled)

    def of(self, request: web.Request) -> ListItemCache:
        """Return the cache for the response to a request."""
        return self._relative if came_by_proxy(request) else self._usual


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _position(snapshot: JobSnapshot) -> After:
    return snapshot.job.created_order, snapshot.job.id
