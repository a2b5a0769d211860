"""From a request to its handler: short ways for a job's status and download, the framework's for any other.

These two get nearly all of the traffic, and the framework's router takes as long as their answer. What a
short way takes, it takes behind the same guard, in the same envelope. The shortest is for what needs no wait.
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
Immediate = Callable[[web.Request], web.StreamResponse | None]
"""Answers without a wait, or not at all."""

_JOB_ID: Final = web.RequestKey("jobsvc.job-id", str)


def job_id_of(request: web.Request) -> str:
    """Name the job that a request is about, as its address has it: it may be no job's id at all."""
    return request[_JOB_ID] if _JOB_ID in request else request.match_info["id"]


class Dispatch:
    """Takes the short way where a request is a plain GET of a job's status or download."""

    def __init__(
        self,
        envelope: Envelope,
        status: Handler,
        download: Handler,
        *,
        status_at_once: Immediate,
        download_at_once: Immediate,
    ) -> None:
        """Take the handlers that the framework's routes of these two have, and those that never wait."""
        self._answer = envelope.answer
        self._answer_at_once = envelope.at_once
        self._status = status
        self._download = download
        self._status_at_once = status_at_once
        self._download_at_once = download_at_once

    def at_once(self, given: web.BaseRequest) -> bool:
        """Answer a plain GET where that takes no wait, and say whether it was answered."""
        path, request = given.raw_path, cast(web.Request, given)
        if path.startswith(JOBS):
            job_id = path[len(JOBS) :]
            if is_job_id(job_id):
                request[_JOB_ID] = job_id
                return self._answer_at_once(request, self._status_at_once, STATUS)
            job_id, _, rest = job_id.partition("/")
            if rest == "download" and is_job_id(job_id):
                request[_JOB_ID] = job_id
                return self._answer_at_once(request, self._download_at_once, DOWNLOAD)
        return False

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
