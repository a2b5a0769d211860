"""The table of routes: which address is answered by what, and what a token must have for it."""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web
from multidict import CIMultiDict

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from jobsvc.web import document
from jobsvc.web.download import Download
from jobsvc.web.envelope import meet
from jobsvc.web.guard import Guard
from jobsvc.web.health import Health
from jobsvc.web.link_route import LinkRoute
from jobsvc.web.links import Links
from jobsvc.web.listing import ListRoute
from jobsvc.web.representation import entity_tag
from jobsvc.web.status import StatusRoute


def add_routes(
    app: web.Application,
    *,
    guard: Guard,
    listing: ListRoute,
    status: StatusRoute,
    download: Download,
    link_route: LinkRoute,
    links: Links,
    health: Health,
) -> None:
    """Join the handlers to their addresses; HEAD goes wherever GET does."""
    gets = {
        "/api/jobs": guard(listing.handle, scope=JOBS_READ, budget="list"),
        "/api/jobs/{id}": guard(status.handle, scope=JOBS_READ, budget="status"),
        "/api/jobs/{id}/download": guard(
            download.handle, scope=OUTPUTS_READ, budget="download", authenticate=links.authenticate
        ),
        "/api/openapi.json": _Description().handle,
        "/healthz": health.live,
        "/readyz": health.ready,
        "/metrics": health.metrics,
    }
    posts = {
        "/api/jobs/{id}/download-links": guard(link_route.handle, scope=OUTPUTS_READ, budget="download"),
    }
    app.add_routes([web.get(path, handler, expect_handler=meet) for path, handler in gets.items()])
    app.add_routes([web.post(path, handler, expect_handler=meet) for path, handler in posts.items()])


class _Description:
    """`GET /api/openapi.json`: what the service does, for programs. The same for everyone, so no token."""

    def __init__(self) -> None:
        self._body = files("jobsvc.web").joinpath("openapi.json").read_bytes()
        self._headers = CIMultiDict(
            {
                "ETag": entity_tag(self._body),
                "Content-Type": "application/json",
                "Cache-Control": "no-cache",
                "X-Content-Type-Options": "nosniff",
            }
        )

    async def handle(self, request: web.Request) -> web.Response:
        return document.answer(request, self._body, self._headers.copy())
