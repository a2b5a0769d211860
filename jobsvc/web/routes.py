"""The table of routes: which address is answered by what, and what a token must have for it."""

from __future__ import annotations

from importlib.resources import files

from aiohttp import hdrs, web

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from jobsvc.web.download import Download
from jobsvc.web.guard import Guard
from jobsvc.web.health import Health
from jobsvc.web.representation import entity_tag
from jobsvc.web.status import StatusRoute


def add_routes(
    app: web.Application, *, guard: Guard, status: StatusRoute, download: Download, health: Health
) -> None:
    """Join the handlers to their addresses; HEAD goes wherever GET does."""
    app.add_routes(
        [
            web.get("/api/jobs/{id}", guard(status.handle, scope=JOBS_READ, budget="status")),
            web.get("/api/jobs/{id}/download", guard(download.handle, scope=OUTPUTS_READ, budget="download")),
            web.get("/api/openapi.json", _Description().handle),
            web.get("/healthz", health.live),
            web.get("/readyz", health.ready),
            web.get("/metrics", health.metrics),
        ]
    )


class _Description:
    """`GET /api/openapi.json`: what the service does, for programs. The same for everyone, so no token."""

    def __init__(self) -> None:
        self._body = files("jobsvc.web").joinpath("openapi.json").read_bytes()
        self._headers = {hdrs.ETAG: entity_tag(self._body), hdrs.CACHE_CONTROL: "no-cache"}

    async def handle(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._body, headers=self._headers, content_type="application/json")
