"""The server: it creates this service's connections, and wraps the application's handler.

aiohttp calls the handler for each request that its parser accepts, also for those that no middleware gets.
"""

from __future__ import annotations

from typing import Any, Final, cast

from aiohttp import HttpVersion11, hdrs, web

from jobsvc.domain.errors import TooManyConnections
from jobsvc.observe import request_id
from jobsvc.web import problems
from jobsvc.web.app.cors import CROSS_ORIGIN
from jobsvc.web.app.middleware import framework_error
from jobsvc.web.app.routes import FAST_ROUTER
from jobsvc.web.connection.closing import drain
from jobsvc.web.connection.connection import RequestHandler
from jobsvc.web.connection.connection_limits import CONNECTION_LIMITS
from jobsvc.web.connection.fast_connection import FastPathServer
from jobsvc.web.connection.timeouts import CONNECTION_TIMEOUTS
from jobsvc.web.responses.common_headers import REQUEST_ID, add_common_headers

PROBE_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""What a connection above the limit may request."""
CONNECTION_RETRY_S: Final = 1


class ServiceRunner(web.AppRunner):
    """AppRunner whose server creates this service's connections."""

    def __init__(self, app: web.Application, *, fast_path: bool = True, **kw: Any) -> None:  # noqa: ANN401 - the parent's signature
        """`fast_path`: whether connections use the fast path. Responses do not differ without it."""
        super().__init__(app, **kw)
        self._jobsvc_fast_path = fast_path

    async def cleanup(self) -> None:
        """Stop accepting connections, respond to requests that are in transit, then end the application."""
        for site in self.sites:
            await site.stop()
        if isinstance(self.server, FastPathServer):
            await drain(self.server.open_connections)
        await super().cleanup()

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        router, limits = self.app[FAST_ROUTER], self.app[CONNECTION_LIMITS]
        cross_origin = self.app[CROSS_ORIGIN]
        handler = router.wrap(_with_problem_body(server.request_handler))
        # aiohttp has no public way to set the class of a connection's handler.
        fast_server = FastPathServer(
            cross_origin.add_fields(cross_origin.answer_preflights(handler)),
            restricted_handler=cross_origin.add_fields(probes_only(handler)),
            limits=limits,
            count_unparsed=router.count_unparsed,
            try_fast=router.try_fast,
            fast_path=self._jobsvc_fast_path,
            request_factory=server.request_factory,
            loop=server._loop,  # noqa: SLF001
            **server._kwargs,  # noqa: SLF001
        )
        limits.open_connections = fast_server.open_connections
        self.app[CONNECTION_TIMEOUTS].open_connections = fast_server.open_connections
        return fast_server


def _with_problem_body(handler: RequestHandler) -> RequestHandler:
    """Turn what aiohttp refuses before the middleware, such as an unknown Expect (417), into problem JSON."""

    async def with_problem_body(request: web.BaseRequest) -> web.StreamResponse:
        if _has_unknown_expectation(request):  # aiohttp fails if the value is not ASCII
            return framework_error(cast(web.Request, request), web.HTTPExpectationFailed())
        try:
            return await handler(request)
        except web.HTTPException as exc:
            return framework_error(cast(web.Request, request), exc)  # the application raises no others

    return with_problem_body


def _has_unknown_expectation(request: web.BaseRequest) -> bool:
    expected = request.headers.get(hdrs.EXPECT, "100-continue")
    return expected.lower() != "100-continue" and request.version >= HttpVersion11


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
