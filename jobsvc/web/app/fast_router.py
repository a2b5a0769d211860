"""Route a job's status and download directly to their handlers, all other requests through aiohttp's router.

These two routes get nearly all of the traffic, and aiohttp's router takes as long as their response. The
direct routes use the same guard and middleware. Responses that need no wait are sent on the fast path.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, NamedTuple, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from jobsvc.storage.layout import is_job_id
from jobsvc.web.app.guard import FastHandler
from jobsvc.web.app.middleware import UNMATCHED, RequestMiddleware
from jobsvc.web.connection.connection import RequestHandler
from jobsvc.web.connection.fast_connection import FastConnection
from jobsvc.web.connection.fast_request import FastRequest, ParsedHead
from jobsvc.web.paths import JOB_ID, JOBS, PLAIN_FILE, VERSION_QUERY

MAX_SLASHES: Final = 256
"""Slashes in a request target, at most: the time of aiohttp's router grows with their square."""
_VERSIONED: Final = "download?"
_NO_MATCH: Final = (None, "", None)


class FastRoute(NamedTuple):
    """A route, with its handlers."""

    pattern: str
    """Its path, with names in braces as in aiohttp's router."""
    handle: Handler
    """The handler of the same route in aiohttp's router."""
    try_fast: FastHandler
    """The handler of a plain GET on the fast path."""


class FastRouter:
    """Routes a plain GET of a job's status or download without aiohttp's router."""

    def __init__(
        self, middleware: RequestMiddleware, status: FastRoute, download: FastRoute, file: FastRoute
    ) -> None:
        """Take the routes, whose handlers are already guarded; `file` is that of a file of an output.

        Frames are requested by players and compositors; all but plain requests for them go through aiohttp.
        """
        self.count_unparsed = middleware.count_unparsed
        self._handle = middleware.handle
        self._try_fast = middleware.try_fast
        self._status = status
        self._download = download
        self._file = file

    def try_fast(self, connection: FastConnection, message: ParsedHead, target: str) -> bool:
        """Respond to a plain GET of this target if that needs no wait; return whether it did."""
        route, job_id, version = self._match(target)
        if route is None:
            return self._try_file(connection, message, target)
        request = FastRequest(connection, message, target, job_id, version)
        return self._try_fast(request, route.try_fast, route.pattern)

    def _try_file(self, connection: FastConnection, message: ParsedHead, target: str) -> bool:
        match = PLAIN_FILE.fullmatch(target)
        if match is None:
            return False
        job_id, output, path, version = match.groups()
        request = FastRequest(connection, message, target, job_id, version, file=(output, path[1:] or None))
        return self._try_fast(request, self._file.try_fast, self._file.pattern)

    def wrap(self, general: RequestHandler) -> RequestHandler:
        """Return a handler for all requests, which calls `general` for all but the two routes."""

        def dispatch(base_request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            request = cast(web.Request, base_request)
            if request.method == "GET" and hdrs.EXPECT not in request.headers:
                route, job_id, _ = self._match(request.raw_path)
                if route is not None:
                    request[JOB_ID] = job_id
                    return self._handle(request, route.handle, route.pattern)
            if request.raw_path.count("/") > MAX_SLASHES:
                return self._handle(request, _not_found, UNMATCHED)
            return general(request)

        return dispatch

    def _match(self, path: str) -> tuple[FastRoute | None, str, str | None]:
        """Return the route of a target, its job id and output version; `_NO_MATCH` if no route matches."""
        if not path.startswith(JOBS):
            return _NO_MATCH
        job_id, slash, rest = path[len(JOBS) :].partition("/")
        route, version = self._download if slash else self._status, None
        if slash and rest != "download":
            match = VERSION_QUERY.fullmatch(rest, len(_VERSIONED)) if rest.startswith(_VERSIONED) else None
            if match is None:
                return _NO_MATCH
            version = match[1]
        return (route, job_id, version) if is_job_id(job_id) else _NO_MATCH


async def _not_found(_request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound
