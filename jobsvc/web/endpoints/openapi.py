"""`GET /api/openapi.json`: return the API description."""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web

from jobsvc.web import query_params
from jobsvc.web.jobs.representation import entity_tag
from jobsvc.web.responses import json_response


class OpenApiEndpoint:
    """Handler of `GET /api/openapi.json`. The response is the same for everyone, so it needs no token."""

    def __init__(self) -> None:
        self._body = files("jobsvc.web").joinpath("openapi.json").read_bytes()
        self._fields = {
            "ETag": entity_tag(self._body),
            "Content-Type": "application/json",
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD."""
        query_params.reject_unknown(request.query)
        return json_response.respond(request, self._body, self._fields)
