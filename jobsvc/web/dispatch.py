"""From a request to its handler: short ways for a job's status and download, the framework's for any other.

These two get nearly all of the traffic, and the framework's router takes as long as their answer. What a
short way takes, it takes behind the same guard, in the same envelope. The shortest is for what needs no wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from jobsvc.storage.layout import is_job_id
from jobsvc.web.envelope import Envelope
from jobsvc.web.guard import Immediate

ServerHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

JOBS: Final = "/api/jobs/"
STATUS: Final = "/api/jobs/{id}"
DOWNLOAD: Final = "/api/jobs/{id}/download"
_JOB_ID: Final = web.RequestKey("jobsvc.job-id", str)


def job_id_of(request: web.Request) -> str:
    """Name the job that a request is about, as its address has it: it may be no job's id at all."""
    try:
        return request[_JOB_ID]
    except KeyError:
        return request.match_info["id"]


class Way(NamedTuple):
    """A route of the two, and its ways to an answer."""

    route: str
    handle: Handler
    """As the framework's route has it."""
    at_once: Immediate
    """For a plain GET."""


class Dispatch:
    """Takes a short way where a request is a plain GET of a job's status or download."""

    def __init__(self, envelope: Envelope, status: Way, download: Way) -> None:
        """Take what both have beneath the guard."""
        self._answer = envelope.answer
        self._answer_at_once = envelope.at_once
        self._status = status
        self._download = download

    def at_once(self, given: web.BaseRequest) -> bool:
        """Answer a plain GET where that takes no wait, and say whether it was answered."""
        request = cast(web.Request, given)
        way = self._way(request)
        return way is not None and self._answer_at_once(request, way.at_once, way.route)

    def over(self, general: ServerHandler) -> ServerHandler:
        """Return a handler of everything, which asks `general` for what is not to go the short way."""

        def dispatched(given: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            request = cast(web.Request, given)
            if request.method == "GET" and hdrs.EXPECT not in request.headers:
                way = self._way(request)
                if way is not None:
                    return self._answer(request, way.handle, way.route)
            return general(request)

        return dispatched

    def _way(self, request: web.Request) -> Way | None:
        """Find the way of an address, and note on the request which job it names."""
        path = request.raw_path
        if not path.startswith(JOBS):
            return None
        job_id, slash, rest = path[len(JOBS) :].partition("/")
        way = self._download if rest == "download" else None if slash else self._status
        if way is None or not is_job_id(job_id):
            return None
        request[_JOB_ID] = job_id
        return way
