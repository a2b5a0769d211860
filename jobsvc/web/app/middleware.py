"""Wrap every request: request id, problem JSON, metrics, and a log line for an error.

This is the only middleware. A handler that sends its response itself adds the common headers before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from time import perf_counter
from typing import Final

import structlog
from aiohttp import HttpVersion11, hdrs, web

from jobsvc.domain.errors import ApiError, RateLimited, Unauthorized
from jobsvc.observe import request_id, trace
from jobsvc.observe.metrics import Metrics
from jobsvc.web import problems
from jobsvc.web.app import guard
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.signed_links import LINK
from jobsvc.web.connection.fast_request import FastRequest
from jobsvc.web.connection.response_stream import send_continue
from jobsvc.web.ratelimit import budgets
from jobsvc.web.responses.common_headers import REQUEST_ID, add_common_headers

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

UNMATCHED: Final = "unmatched"
"""The route name of a request that matches no route."""
LONG_LIVED_PARAMETERS: Final = ("wait", "follow")
"""Query parameters that let a request last until a change; they are part of the route's name."""
MIN_LOGGED_STATUS: Final = 400
"""The lowest status that is logged."""
log = structlog.get_logger("jobsvc.web")


class RequestMiddleware:
    """The middleware of the service."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._observe = metrics.observe_request

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Return a response to the request whatever happens, and record it in metrics and log."""
        return await self.handle(request, handler, route_of(request))

    async def handle(self, request: web.Request, handler: Handler, route: str) -> web.StreamResponse:
        """Do the same as `__call__` for a request whose route pattern is already known."""
        started_at = perf_counter()
        request_id.begin(request.headers.get(REQUEST_ID))
        trace.begin(request.headers)
        refused: ApiError | None = None
        try:
            response = await handler(request)
        except ApiError as refusal:
            # Its traceback refers to this frame: a cycle that only a garbage collection would free.
            refused = refusal.with_traceback(None)
            self._count(request, refusal)
            response = problems.from_api_error(refusal)
        except web.HTTPException as exception:
            response = problems.from_http_exception(exception)
        except Exception:
            log.exception("request-failed", method=request.method, route=route)
            response = problems.internal_error()
        if not response.prepared:
            add_common_headers(request, response)
        status = response.status
        self._observe(route, request.method, status, perf_counter() - started_at)
        if status >= MIN_LOGGED_STATUS:
            _log_refusal(request, route, status, refused)
        return response

    def try_fast(self, request: FastRequest, handler: guard.FastHandler, route: str) -> bool:
        """Respond on the fast path and record it in the metrics; return False if no response was sent.

        Refusals are left to the general path. An unexpected exception closes the connection.
        """
        started_at = perf_counter()
        bound_id = request_id.begin(request.headers.get(REQUEST_ID))
        try:
            status = handler(request)
        except ApiError:
            return False
        except Exception:
            log.exception("request-failed", method=hdrs.METH_GET, route=route)
            self._observe(route, hdrs.METH_GET, HTTPStatus.INTERNAL_SERVER_ERROR, perf_counter() - started_at)
            request.close_connection()
            return True
        finally:
            request_id.end(bound_id)
        if status is None:
            return False
        self._observe(route, hdrs.METH_GET, status, perf_counter() - started_at)
        return True

    def count_unparsed(self, status: int) -> None:
        """Count a request that never reached a route."""
        self._observe("unparsed", "other", status, 0.0)

    def _count(self, request: web.Request, refusal: ApiError) -> None:
        if isinstance(refusal, Unauthorized):
            self._metrics.auth_failures.inc()
        elif isinstance(refusal, RateLimited):
            budget = request.get(budgets.BUDGET)
            self._metrics.rate_limited.labels(budget.name if budget else "auth-failures").inc()


def _log_refusal(request: web.Request, route: str, status: int, refused: ApiError | None) -> None:
    """Log a refusal with its route, not its URL: that can contain a signature and is client input."""
    fields = {} if refused is None else _refusal_fields(request, refused)
    write = log.warning if status >= HTTPStatus.INTERNAL_SERVER_ERROR else log.info
    write("refused", status=status, method=request.method, route=route, peer=request.remote, **fields)


def _refusal_fields(request: web.Request, refused: ApiError) -> dict[str, str]:
    """Return the log fields of a refusal: its code, its reason, and the ids of token and link, if known."""
    fields = {"code": refused.code}
    if refused.reason is not None:
        fields["reason"] = refused.reason
    token = request.get(TOKEN)
    token_id = refused.token_id if token is None else token.id
    if token_id is not None:
        fields["tokenId"] = token_id
    link_id = request.get(LINK) or (refused.link_id if isinstance(refused, Unauthorized) else None)
    if link_id is not None:
        fields["link"] = link_id
    return fields


async def handle_expect(request: web.Request) -> web.StreamResponse | None:
    """Handle an Expect field (RFC 9110, section 10.1.1): 100 for 100-continue, 417 for anything else.

    aiohttp calls this before any middleware.
    """
    if request.version < HttpVersion11:
        return None
    if request.headers[hdrs.EXPECT].lower() == "100-continue":
        if request.body_exists:
            await send_continue(request)
        return None
    return framework_error(request, web.HTTPExpectationFailed())


def framework_error(request: web.Request, refused: web.HTTPException) -> web.Response:
    """Return the response to a request that aiohttp refused before the middleware."""
    request_id.begin(request.headers.get(REQUEST_ID))
    response = problems.from_http_exception(refused)
    add_common_headers(request, response)
    return response


def route_of(request: web.Request) -> str:
    """Return the pattern of the route as its name, so that there are as many names as routes."""
    resource = request.match_info.route.resource
    if resource is None:
        return UNMATCHED
    if "?" in request.raw_path:
        for name in LONG_LIVED_PARAMETERS:
            if name in request.query:
                return f"{resource.canonical}?{name}"
    return resource.canonical
