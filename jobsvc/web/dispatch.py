"""From a request to its handler: a short way for a job's status and download, the framework's for any other.

These two get nearly all of the traffic, and the framework's router takes as long as their answer. What the
short way takes, it takes to the same handlers, behind the same guard, in the same envelope.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from jobsvc.storage.layout import is_job_id
from jobsvc.web.envelope import Envelope

ServerHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

JOBS: Final = "/api/jobs/"
STATUS: Final = "/api/jobs/{id}"
DOWNLOAD: Final = "/api/jobs/{id}/download"
_JOB_ID: Final = web.RequestKey("jobsvc.job-id", str)


def job_id_of(request: web.Request) -> str:
    """Name the job that a request is about, as its address has it: it may be no job's id at all."""
    return request[_JOB_ID] if _JOB_ID in request else request.match_info["id"]


class Dispatch:
    """Takes the short way where a request is a plain GET of a job's status or download."""

    def __init__(self, envelope: Envelope, status: Handler, download: Handler) -> None:
        """Take the handlers that the framework's routes of these two have."""
        self._answer = envelope.answer
        self._status = status
        self._download = download

    def over(self, general: ServerHandler) -> ServerHandler:
        """Return a handler of everything, which asks `general` for what is not to go the short way."""

        def dispatched(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            path = request.raw_path
            if path.startswith(JOBS) and request.method == "GET" and hdrs.EXPECT not in request.headers:
                job_id = path[len(JOBS) :]
                if is_job_id(job_id):
                    request[_JOB_ID] = job_id
                    return self._answer(cast(web.Request, request), self._status, STATUS)
                job_id, _, rest = job_id.partition("/")
                if rest == "download" and is_job_id(job_id):
                    request[_JOB_ID] = job_id
                    return self._answer(cast(web.Request, request), self._download, DOWNLOAD)
            return general(request)

        return dispatched
