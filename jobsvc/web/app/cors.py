"""Let pages of the configured origins use the API (CORS); without origins, requests are handled as they are.

Every response to a request below /api/ gets the fields, errors and streams too. Preflights are answered
here, for unknown paths too: the request that follows gets the 404.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final, cast

from aiohttp import hdrs, web

from jobsvc.web.app.middleware import RequestMiddleware
from jobsvc.web.connection.connection import RequestHandler
from jobsvc.web.headers import cors

PREFLIGHT: Final = "preflight"
"""The route name of preflights."""

_API: Final = "/api/"
_VARY_LINE: Final = "{}: {}\r\n".format(*cors.VARY)


class CrossOrigin:
    """Wraps handlers so that pages of other origins can read their responses."""

    def __init__(self, origins: Collection[str], middleware: RequestMiddleware) -> None:
        """`origins` are as browsers send them: `https://portal.example.com`."""
        self._origins = frozenset(origins)
        self._middleware = middleware

    def add_fields(self, handler: RequestHandler) -> RequestHandler:
        """Wrap a handler so that its responses get the fields, which `add_common_headers` adds."""
        if not self._origins:
            return handler

        def with_fields(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            if request.path.startswith(_API):
                request[cors.CORS_FIELDS] = cors.response_fields(request.headers, self._origins)
            return handler(request)

        return with_fields

    def answer_preflights(self, handler: RequestHandler) -> RequestHandler:
        """Wrap a handler so that it does not get the preflights of pages of these origins."""
        if not self._origins:
            return handler

        def with_preflights(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            if request.method != hdrs.METH_OPTIONS or not request.path.startswith(_API):
                return handler(request)
            fields = cors.preflight_fields(request.headers, self._origins)
            if fields is None:
                return handler(request)
            return self._middleware.handle(cast(web.Request, request), _preflight(fields), PREFLIGHT)

        return with_preflights

    @property
    def fast_lines(self) -> str:
        """What the responses of the fast path get, which is not used for requests with an origin."""
        return _VARY_LINE if self._origins else ""


CROSS_ORIGIN: Final = web.AppKey("jobsvc.cross-origin", CrossOrigin)
"""On the application: how it treats pages of other origins; the server wraps its handlers."""


def _preflight(fields: cors.Fields) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def respond(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=204, headers=dict(fields))

    return respond
