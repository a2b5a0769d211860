"""`POST /ui/session` signs a browser in with the token of the request, `DELETE /ui/session` signs it out."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.sessions import Sessions


class BrowserSessionEndpoint:
    """Handlers of `/ui/session` and their dependencies."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """Handle POST: set the cookie."""
        response = _empty()
        self._sessions.start(request, response, request[TOKEN])
        return response

    async def sign_out(self, request: web.Request) -> web.StreamResponse:
        """Handle DELETE: remove the cookie, valid or not. Raises CrossOriginRequest."""
        query_params.reject_unknown(request.query)
        response = _empty()
        self._sessions.end(request, response)
        return response


def _empty() -> web.Response:
    return web.Response(status=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})
