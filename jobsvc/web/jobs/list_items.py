"""Jobs as the list and `GET /api/events` show them: JSON that is made once, and bounded in bytes.

Without the end of a log, which would have to be read for each failed job. Without a digest too: both answer
from memory, and only a look at the disk can tell whether a digest still is that of the output.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Final, NamedTuple

import orjson
from aiohttp import web

from jobsvc.index.queries.listing import After, Page
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.jobs.addresses import came_by_proxy, job_base
from jobsvc.web.jobs.owner_member import add_owner
from jobsvc.web.jobs.representation import render_job

MAX_CACHED_JOBS: Final = 4096
MAX_CACHED_BYTES: Final = 16 << 20


LARGE_BYTES: Final = 4096
"""The JSON of a job from this size on is hashed once, and not copied for each answer."""


class Element(NamedTuple):
    """A job of a list."""

    json: bytes
    identity: bytes
    """What a page's entity tag is made of: the JSON or, of a large job, a digest."""


class Part(NamedTuple):
    """As much of a page as fits into some bytes."""

    page: Page
    elements: list[Element]
    """One for each of the page's jobs."""


class ListItemCache:
    """Makes the JSON of jobs, and remembers that of the jobs asked for lately."""

    def __init__(
        self,
        base_of: Callable[[str], str],
        *,
        max_jobs: int = MAX_CACHED_JOBS,
        max_bytes: int = MAX_CACHED_BYTES,
    ) -> None:
        """`base_of` returns what the addresses of a job begin with."""
        self._base_of = base_of
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._size = 0
        self._cached: dict[str, tuple[JobSnapshot, Element]] = {}

    def json_of(self, reading: JobSnapshot, *, with_owner: bool = False) -> bytes:
        """Return the JSON of a job; `with_owner` for `admin` tokens."""
        return (self._with_owner if with_owner else self._remembered)(reading).json

    def _with_owner(self, reading: JobSnapshot) -> Element:
        element = self._remembered(reading)
        json = add_owner(element.json, reading.job.owner)
        if len(element.json) < LARGE_BYTES:
            return Element(json, json)
        return Element(json, _digest(element.identity + json[len(element.json) - 1 :]))

    def _remembered(self, reading: JobSnapshot) -> Element:
        made = self._cached.get(reading.job.id)
        if made is not None:
            if made[0] is reading:
                return made[1]
            self._size -= len(made[1].json)
        json = orjson.dumps(render_job(reading, self._base_of(reading.job.id)))
        if len(self._cached) >= self._max_jobs or self._size + len(json) > self._max_bytes:
            self._cached.clear()
            self._size = 0
        self._size += len(json)
        element = Element(json, json if len(json) < LARGE_BYTES else _digest(json))
        self._cached[reading.job.id] = (reading, element)
        return element

    def fit(self, page: Page, max_bytes: int, *, with_owner: bool = False) -> Part:
        """Cut a page where its jobs have more than `max_bytes` together; the first one it always keeps."""
        element_of = self._with_owner if with_owner else self._remembered
        elements: list[Element] = []
        size = 0
        for element in map(element_of, page.snapshots):
            size += len(element.json)
            if elements and size > max_bytes:
                shown = page.snapshots[: len(elements)]
                return Part(page._replace(snapshots=shown, after=_place(shown[-1])), elements)
            elements.append(element)
        return Part(page, elements)


class ListItemCaches:
    """The two forms of the same jobs; in one, addresses are relative to `/api/jobs` and `/api/events`."""

    def __init__(self, public_url: str = "") -> None:
        """Addresses begin with `public_url`; then both forms are the same."""
        self._usual = ListItemCache(partial(job_base, public_url))
        self._relative = self._usual if public_url else ListItemCache("jobs/{}/".format)

    def of(self, request: web.Request) -> ListItemCache:
        """Return the form that a request is answered with."""
        return self._relative if came_by_proxy(request) else self._usual


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _place(reading: JobSnapshot) -> After:
    return reading.job.created_order, reading.job.id
