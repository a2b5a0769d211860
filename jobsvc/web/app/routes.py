"""The route table: which handler serves which path, and which scope and budget it needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from aiohttp import web

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from jobsvc.web import query_params
from jobsvc.web.app.fast_router import FastRoute, FastRouter
from jobsvc.web.app.guard import Authenticate, Guard
from jobsvc.web.app.middleware import RequestMiddleware, handle_expect
from jobsvc.web.auth import signed_links
from jobsvc.web.auth.signed_links import SignedLinks
from jobsvc.web.endpoints import job_list
from jobsvc.web.endpoints.all_events import AllEventsEndpoint
from jobsvc.web.endpoints.download import DownloadEndpoint
from jobsvc.web.endpoints.download_links import DownloadLinksEndpoint
from jobsvc.web.endpoints.health import HealthEndpoints
from jobsvc.web.endpoints.job_events import JobEventsEndpoint
from jobsvc.web.endpoints.job_list import JobListEndpoint
from jobsvc.web.endpoints.job_log import JobLogEndpoint
from jobsvc.web.endpoints.job_status import JobStatusEndpoint
from jobsvc.web.endpoints.me import TokenEndpoint
from jobsvc.web.jobs.representation import entity_tag
from jobsvc.web.paths import DOWNLOAD, NAMED_DOWNLOAD, STATUS
from jobsvc.web.ratelimit.seeking import RangeContinuations
from jobsvc.web.responses import json_response
from jobsvc.web.streaming import sse

FAST_ROUTER: Final = web.AppKey("jobsvc.fast-router", FastRouter)
"""On the application: the router that the server calls."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints that have routes."""

    listing: JobListEndpoint
    status: JobStatusEndpoint
    download: DownloadEndpoint
    logs: JobLogEndpoint
    job_events: JobEventsEndpoint
    all_events: AllEventsEndpoint
    download_links: DownloadLinksEndpoint
    token: TokenEndpoint
    health: HealthEndpoints
    seeks: RangeContinuations


def add_routes(
    app: web.Application,
    *,
    middleware: RequestMiddleware,
    guard: Guard,
    links: SignedLinks,
    handlers: Endpoints,
) -> None:
    """Add the routes and the middleware to the application; HEAD is allowed wherever GET is."""
    health = handlers.health
    status = _fast_route(
        STATUS, handlers.status, guard, scope=JOBS_READ, budget="status", parameters=("wait",)
    )
    download = _fast_route(
        DOWNLOAD,
        handlers.download,
        guard,
        scope=OUTPUTS_READ,
        budget="download",
        parameters=signed_links.PARAMETERS,
        authenticate=links.authenticate,
        seeks=handlers.seeks,
    )
    gets = {
        "/api/jobs": guard.wrap(
            handlers.listing.handle, scope=JOBS_READ, budget="list", parameters=job_list.PARAMETERS
        ),
        STATUS: status.handle,
        DOWNLOAD: download.handle,
        NAMED_DOWNLOAD.replace("{name}", "{name:[^/]+}"): download.handle,
        "/api/jobs/{id}/events": guard.wrap(
            handlers.job_events.handle, scope=JOBS_READ, budget="status", parameters=(sse.LAST_EVENT_ID,)
        ),
        "/api/events": guard.wrap(
            handlers.all_events.handle,
            scope=JOBS_READ,
            budget="events",
            parameters=("status", sse.LAST_EVENT_ID),
        ),
        "/api/jobs/{id}/logs": guard.wrap(
            handlers.logs.handle,
            scope=JOBS_READ,
            budget="logs",
            parameters=("tail", "follow", sse.LAST_EVENT_ID),
        ),
        "/api/me": guard.wrap_token_only(handlers.token.handle),
        "/api/openapi.json": _OpenApiDocument().handle,
        "/healthz": health.live,
        "/readyz": health.ready,
        "/metrics": health.metrics,
    }
    posts = {
        "/api/jobs/{id}/download-links": guard.wrap(
            handlers.download_links.handle, scope=OUTPUTS_READ, budget="download"
        ),
    }
    app.middlewares.append(web.middleware(middleware))
    app[FAST_ROUTER] = FastRouter(middleware, status, download)
    app.add_routes([web.get(path, handler, expect_handler=handle_expect) for path, handler in gets.items()])
    app.add_routes([web.post(path, handler, expect_handler=handle_expect) for path, handler in posts.items()])


def _fast_route(
    route: str,
    handler: JobStatusEndpoint | DownloadEndpoint,
    guard: Guard,
    *,
    scope: str,
    budget: str,
    parameters: Collection[str],
    authenticate: Authenticate | None = None,
    seeks: RangeContinuations | None = None,
) -> FastRoute:
    """Create a fast route whose two handlers require the same scope and budget."""
    return FastRoute(
        route,
        guard.wrap(
            handler.handle,
            scope=scope,
            budget=budget,
            parameters=parameters,
            authenticate=authenticate,
            seeks=seeks,
        ),
        guard.wrap_fast(handler.try_fast, scope=scope, budget=budget, seeks=seeks),
    )


class _OpenApiDocument:
    """`GET /api/openapi.json`: the API description. It is the same for everyone, so it needs no token."""

    def __init__(self) -> None:
        self._body = files("jobsvc.web").joinpath("openapi.json").read_bytes()
        self._fields = {
            "ETag": entity_tag(self._body),
            "Content-Type": "application/json",
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        query_params.reject_unknown(request.query)
        return json_response.respond(request, self._body, self._fields)
