"""`POST /ui/session` signs a browser in with the token of the request, `DELETE /ui/session` signs it out."""

from __future__ import annotations

from aiohttp import web

from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.sessions import Sessions
from jobsvc.web.endpoints.me import describe
from jobsvc.web.responses import json_response


class BrowserSessionEndpoint:
    """Handlers of `/ui/session` and their dependencies."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """Handle POST: set the cookie; the response describes the token."""
        token = request[TOKEN]
        response = json_response.uncached(describe(token))
        self._sessions.start(request, response, token)
        return response

    async def sign_out(self, request: web.Request) -> web.StreamResponse:
        """Handle DELETE: remove the cookie, whether or not its session is valid."""
        query_params.reject_unknown(request.query)
        response = web.Response(status=204, headers={"Cache-Control": "no-store"})
        self._sessions.end(request, response)
        return response
