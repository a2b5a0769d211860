"""aiohttp's server, with problem responses to requests that are too malformed to reach the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import HttpVersion11, hdrs, web

from jobsvc.domain.errors import TooManyConnections
from jobsvc.observe import request_id
from jobsvc.web import problems
from jobsvc.web.app.fast_router import ServerHandler
from jobsvc.web.app.middleware import framework_error
from jobsvc.web.app.routes import FAST_ROUTER
from jobsvc.web.connection.connection_limits import CONNECTION_LIMITS
from jobsvc.web.connection.fast_connection import FastPathServer
from jobsvc.web.connection.timeouts import CONNECTION_TIMEOUTS
from jobsvc.web.responses.common_headers import REQUEST_ID, add_common_headers


class ServiceRunner(web.AppRunner):
    """AppRunner whose server creates this service's connections."""

    def __init__(self, app: web.Application, *, fast_path: bool = True, **kw: Any) -> None:  # noqa: ANN401 - the parent's signature
        """`fast_path`: whether connections use the fast path. Responses do not differ without it."""
        super().__init__(app, **kw)
        self._jobsvc_fast_path = fast_path

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        router = self.app[FAST_ROUTER]
        # aiohttp has no public way to set the class of a connection's handler.
        ours = FastPathServer(
            router.wrap(_with_problem_body(server.request_handler)),
            request_factory=server.request_factory,
            loop=server._loop,  # noqa: SLF001
            **server._kwargs,  # noqa: SLF001
        )
        ours.fast_path = self._jobsvc_fast_path
        ours.try_fast = router.try_fast
        ours.count_unparsed = router.count_unparsed
        ours.restricted_handler = probes_only(ours.request_handler)
        ours.limits = self.app[CONNECTION_LIMITS]
        for each in (self.app[CONNECTION_LIMITS], self.app[CONNECTION_TIMEOUTS]):
            each.open_connections = ours.open_connections
        return ours


def _with_problem_body(handler: ServerHandler) -> ServerHandler:
    """Turn what aiohttp refuses before the middleware, such as an unknown Expect (417), into problem JSON."""

    async def explained(request: web.BaseRequest) -> web.StreamResponse:
        if _has_unknown_expectation(request):  # aiohttp fails if the value is not ASCII
            return framework_error(cast(web.Request, request), web.HTTPExpectationFailed())
        try:
            return await handler(request)
        except web.HTTPException as refused:
            return framework_error(cast(web.Request, request), refused)  # the application raises no others

    return explained


def _has_unknown_expectation(request: web.BaseRequest) -> bool:
    expected = request.headers.get(hdrs.EXPECT, "100-continue")
    return expected.lower() != "100-continue" and request.version >= HttpVersion11


PROBE_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})

CONNECTION_RETRY_S: Final = 1

RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def probes_only(handler: RequestHandler) -> RequestHandler:
    """Wrap a handler so that it serves only probes, responds with 503 to everything else, and closes."""

    async def restricted(request: web.BaseRequest) -> web.StreamResponse:
        if request.method in {hdrs.METH_GET, hdrs.METH_HEAD} and request.path in PROBE_PATHS:
            response = await handler(request)
        else:
            request_id.begin(request.headers.get(REQUEST_ID))
            response = problems.from_api_error(
                TooManyConnections("All connections are in use.", retry_after=CONNECTION_RETRY_S)
            )
            add_common_headers(cast(web.Request, request), response)
        response.force_close()
        return response

    return restricted
