"""The route table: which handler serves which path, and which scope and budget it needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from jobsvc.web.app.cors import CROSS_ORIGIN, CrossOrigin
from jobsvc.web.app.fast_router import FastRoute, FastRouter
from jobsvc.web.app.guard import Authenticate, Guard
from jobsvc.web.app.middleware import RequestMiddleware, handle_expect
from jobsvc.web.auth import signed_links
from jobsvc.web.auth.sessions import Sessions
from jobsvc.web.auth.signed_links import SignedLinks
from jobsvc.web.endpoints import job_list
from jobsvc.web.endpoints.all_events import AllEventsEndpoint
from jobsvc.web.endpoints.browser_session import BrowserSessionEndpoint
from jobsvc.web.endpoints.health import HealthEndpoints
from jobsvc.web.endpoints.job_events import JobEventsEndpoint
from jobsvc.web.endpoints.job_list import JobListEndpoint
from jobsvc.web.endpoints.job_log import JobLogEndpoint
from jobsvc.web.endpoints.job_status import JobStatusEndpoint
from jobsvc.web.endpoints.me import MeEndpoint
from jobsvc.web.endpoints.openapi import OpenApiEndpoint
from jobsvc.web.endpoints.page import PageEndpoint
from jobsvc.web.outputs import archive, job_files
from jobsvc.web.outputs.archive import ArchiveEndpoint
from jobsvc.web.outputs.download import DownloadEndpoint
from jobsvc.web.outputs.download_links import DownloadLinksEndpoint
from jobsvc.web.outputs.job_files import JobFilesEndpoint
from jobsvc.web.paths import DOWNLOAD, FILES, NAMED_DOWNLOAD, OUTPUT_FILE, STATUS, TAR, ZIP
from jobsvc.web.ratelimit.further_ranges import FurtherRanges
from jobsvc.web.streaming import sse

FAST_ROUTER: Final = web.AppKey("jobsvc.fast-router", FastRouter)
"""On the application: the router that the server calls."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints that have routes."""

    job_list: JobListEndpoint
    job_status: JobStatusEndpoint
    download: DownloadEndpoint
    archives: ArchiveEndpoint
    job_files: JobFilesEndpoint
    job_log: JobLogEndpoint
    job_events: JobEventsEndpoint
    all_events: AllEventsEndpoint
    download_links: DownloadLinksEndpoint
    me: MeEndpoint
    openapi: OpenApiEndpoint
    health: HealthEndpoints
    page: PageEndpoint | None
    """None: no web page is served."""
    further_ranges: FurtherRanges


def add_routes(
    app: web.Application,
    *,
    middleware: RequestMiddleware,
    cross_origin: CrossOrigin,
    guard: Guard,
    sessions: Sessions,
    links: SignedLinks,
    endpoints: Endpoints,
) -> None:
    """Add the routes and the middleware to the application; HEAD is allowed wherever GET is."""
    health = endpoints.health
    status = _fast_route(
        STATUS, endpoints.job_status, guard, scope=JOBS_READ, budget="status", parameters=("wait",)
    )
    download = _fast_route(
        DOWNLOAD,
        endpoints.download,
        guard,
        scope=OUTPUTS_READ,
        budget="download",
        parameters=signed_links.FILE_PARAMETERS,
        authenticate=links.authenticate,
        further_ranges=endpoints.further_ranges,
    )
    file = FastRoute(
        OUTPUT_FILE,
        guard.wrap(
            endpoints.download.handle_file,
            scope=OUTPUTS_READ,
            budget="files",
            parameters=signed_links.FILE_PARAMETERS,
            authenticate=links.authenticate,
        ),
        guard.wrap_fast(endpoints.download.prepare_fast_file, scope=OUTPUTS_READ, budget="files"),
    )
    gets = {
        "/api/jobs": guard.wrap(
            endpoints.job_list.handle, scope=JOBS_READ, budget="list", parameters=job_list.PARAMETERS
        ),
        STATUS: status.handle,
        DOWNLOAD: download.handle,
        NAMED_DOWNLOAD.replace("{name}", "{name:[^/]+}"): download.handle,
        FILES: guard.wrap(
            endpoints.job_files.handle, scope=OUTPUTS_READ, budget="files", parameters=job_files.PARAMETERS
        ),
        FILES + "/{output}": file.handle,
        OUTPUT_FILE.replace("{path}", "{path:(?s:.+)}"): file.handle,
        TAR: _archive_route(endpoints.archives.handle_tar, guard, links),
        ZIP: _archive_route(endpoints.archives.handle_zip, guard, links),
        "/api/jobs/{id}/events": guard.wrap(
            endpoints.job_events.handle, scope=JOBS_READ, budget="status", parameters=(sse.LAST_EVENT_ID,)
        ),
        "/api/events": guard.wrap(
            endpoints.all_events.handle,
            scope=JOBS_READ,
            budget="events",
            parameters=("status", sse.LAST_EVENT_ID),
        ),
        "/api/jobs/{id}/logs": guard.wrap(
            endpoints.job_log.handle,
            scope=JOBS_READ,
            budget="logs",
            parameters=("tail", "follow", "base64", sse.LAST_EVENT_ID),
        ),
        "/api/me": guard.wrap_token_only(endpoints.me.handle),
        "/api/openapi.json": endpoints.openapi.handle,
        "/healthz": health.live,
        "/readyz": health.ready,
        "/metrics": health.metrics,
    }
    posts = {
        "/api/jobs/{id}/download-links": guard.wrap(
            endpoints.download_links.handle, scope=OUTPUTS_READ, budget="download"
        ),
    }
    app.middlewares.append(web.middleware(middleware))
    app[CROSS_ORIGIN] = cross_origin
    app[FAST_ROUTER] = FastRouter(middleware, status, download, file)
    app.add_routes([web.get(path, handler, expect_handler=handle_expect) for path, handler in gets.items()])
    app.add_routes([web.post(path, handler, expect_handler=handle_expect) for path, handler in posts.items()])
    if endpoints.page is not None:
        app.add_routes(_page_routes(endpoints.page, sessions, guard))


def _page_routes(page: PageEndpoint, sessions: Sessions, guard: Guard) -> list[web.RouteDef]:
    session = BrowserSessionEndpoint(sessions)
    sign_in = guard.wrap_token_only(session.sign_in, authenticate=sessions.authenticate_token)
    return [
        web.get("/", page.index, expect_handler=handle_expect),
        web.get("/ui/{version}/{path:.+}", page.file, expect_handler=handle_expect),
        web.post("/ui/session", sign_in, expect_handler=handle_expect),
        web.delete("/ui/session", session.sign_out, expect_handler=handle_expect),
    ]


def _archive_route(handler: Handler, guard: Guard, links: SignedLinks) -> Handler:
    return guard.wrap(
        handler,
        scope=OUTPUTS_READ,
        budget="download",
        parameters=(*archive.PARAMETERS, *signed_links.PARAMETERS),
        authenticate=links.authenticate_with_query,
    )


def _fast_route(
    route: str,
    handler: JobStatusEndpoint | DownloadEndpoint,
    guard: Guard,
    *,
    scope: str,
    budget: str,
    parameters: Collection[str],
    authenticate: Authenticate | None = None,
    further_ranges: FurtherRanges | None = None,
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
            further_ranges=further_ranges,
        ),
        guard.wrap_fast(handler.prepare_fast, scope=scope, budget=budget, further_ranges=further_ranges),
    )
