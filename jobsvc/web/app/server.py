"""aiohttp's server, with problem responses to requests that are too malformed to reach the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import structlog
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from jobsvc.domain.errors import TooManyConnections
from jobsvc.observe import request_id
from jobsvc.web import problems
from jobsvc.web.app.fast_router import ServerHandler
from jobsvc.web.app.middleware import framework_error
from jobsvc.web.app.routes import FAST_ROUTER
from jobsvc.web.connection.connection_limits import CONNECTION_LIMITS
from jobsvc.web.connection.protocol import Connection, FastPathServer
from jobsvc.web.connection.request_validation import InvalidRequest
from jobsvc.web.connection.timeouts import CONNECTION_TIMEOUTS
from jobsvc.web.responses.common_headers import REQUEST_ID, add_common_headers

log = structlog.get_logger("jobsvc.web")


class ProblemHandler(Connection):
    """Connection that responds to an unparsable request with problem JSON, and closes."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - the parent's signature
    ) -> web.StreamResponse:
        """Return a problem response: 400 or more specific for invalid HTTP, 500 for an unhandled exception.

        Raises ConnectionError if a response has already been started: the error cannot be sent then.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already, the error can't be told any more")
        request_id.bind(name := request_id.new())
        self._server.count_unparsed(status)
        if isinstance(exc, HttpProcessingError):
            log.info("refused", status=status, reason=type(exc).__name__, peer=request.remote)
            response = _refusal(exc, status)
            if self._refuses_head:
                response.body = None
        else:
            log.error("request-failed", status=status, exc_info=exc)
            response = problems.internal_error()
        response.headers[REQUEST_ID] = name
        response.headers["Server"] = "jobsvc"
        response.headers["Connection"] = "close"  # aiohttp responds as HTTP/1.0 here, and omits it
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401 - the parent's signature
        """Log an exception, except for an unreadable rest of a body: its sender already has a response."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)


def _refusal(exc: HttpProcessingError, status: int) -> web.Response:
    if isinstance(exc, InvalidRequest):
        return problems.problem(exc.problem, exc.message, status=status)
    return problems.problem("bad-request", "The request is not well-formed HTTP.", status=status)


class ProblemServer(FastPathServer):
    """Server that creates a ProblemHandler for every connection."""

    def __call__(self) -> ProblemHandler:
        """Create the handler of one connection."""
        return ProblemHandler(self, loop=self._loop, **self._kwargs)


class ProblemRunner(web.AppRunner):
    """AppRunner that uses ProblemServer and the fast router."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        # aiohttp has no public way to set the class of a connection's handler.
        ours = ProblemServer(
            self.app[FAST_ROUTER].wrap(_with_problem_body(server.request_handler)),
            request_factory=server.request_factory,
            loop=server._loop,  # noqa: SLF001
            **server._kwargs,  # noqa: SLF001
        )
        ours.try_fast = self.app[FAST_ROUTER].try_fast
        ours.count_unparsed = self.app[FAST_ROUTER].count_unparsed
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
