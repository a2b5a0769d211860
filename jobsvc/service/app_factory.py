"""The application: the parts, joined to the routes that need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web

from jobsvc.index.job_index import Index
from jobsvc.service.accept_errors import ACCEPT_ERRORS, AcceptErrors
from jobsvc.service.components import Parts, parts_of
from jobsvc.service.lifespan import add_lifetimes
from jobsvc.settings import Settings
from jobsvc.web.app.guard import Guard
from jobsvc.web.app.middleware import Envelope
from jobsvc.web.app.routes import Handlers, add_routes
from jobsvc.web.auth.bearer import GATE
from jobsvc.web.connection.connection_limits import CONNECTION_LIMITS
from jobsvc.web.connection.timeouts import CONNECTION_TIMEOUTS
from jobsvc.web.endpoints.all_events import AllEvents
from jobsvc.web.endpoints.download import Download
from jobsvc.web.endpoints.download_links import LinkRoute
from jobsvc.web.endpoints.health import Health
from jobsvc.web.endpoints.job_events import JobEvents
from jobsvc.web.endpoints.job_list import ListRoute
from jobsvc.web.endpoints.job_log import Logs
from jobsvc.web.endpoints.job_status import StatusRoute
from jobsvc.web.endpoints.log_follow import Following
from jobsvc.web.endpoints.long_poll import Waiting
from jobsvc.web.endpoints.me import TokenEndpoint
from jobsvc.web.endpoints.recent_logs import RecentLogs
from jobsvc.web.jobs.addresses import PublicUrl
from jobsvc.web.paths import job_id_of
from jobsvc.web.ratelimit.budgets import AuthFailures, Budget, parse_rate
from jobsvc.web.ratelimit.seeking import RANGES_PER_DOWNLOAD, Seeks

BODY_CAP: Final = 64 * 1024
"""The largest request body, in bytes."""


def build_app(settings: Settings, on_indexed: Callable[[], None] | None = None) -> web.Application:
    """Construct the service; it starts and ends with the application.

    `on_indexed` is called once the first index is complete.
    """
    parts = parts_of(settings)
    app = web.Application(client_max_size=BODY_CAP)
    guard = _guard(settings, parts)
    add_routes(
        app,
        envelope=Envelope(parts.metrics),
        guard=guard,
        links=parts.links,
        handlers=_handlers(parts, guard),
    )
    app[GATE] = parts.gate
    app[CONNECTION_LIMITS] = parts.connection_limits
    app[ACCEPT_ERRORS] = AcceptErrors(
        parts.metrics.accept_errors.inc, parts.connection_limits.close_oldest_idle
    )
    app[CONNECTION_TIMEOUTS] = parts.connection_timeouts
    add_lifetimes(app, parts, on_indexed)
    return app


def _handlers(parts: Parts, guard: Guard) -> Handlers:
    index, settings = parts.index, parts.settings
    seeks = _seeks(parts)
    return Handlers(
        listing=ListRoute(index, parts.listed),
        status=_status(parts),
        download=Download(
            disk=parts.disk,
            visits=parts.visits,
            slots=parts.slots,
            transfer=parts.transfer,
            digests=parts.digests,
            log=parts.downloads,
            metrics=parts.metrics,
            seeks=seeks,
        ),
        logs=_logs(parts),
        job_events=JobEvents(
            freshness=index.freshness,
            catalogue=index.catalogue,
            changes=parts.changes,
            presenting=parts.presenting,
            streams=parts.streams,
        ),
        all_events=AllEvents(
            listing=index.listing,
            changes=parts.changes,
            listed=parts.listed,
            turns=parts.turns,
            streams=parts.streams,
            metrics=parts.metrics,
            ready=index.ready,
        ),
        link_route=LinkRoute(
            freshness=index.freshness,
            links=parts.links,
            public_url=PublicUrl(settings.public_url, parts.peers),
            max_age=settings.max_link_age,
        ),
        token=TokenEndpoint(guard.budgets),
        health=Health(parts.metrics, parts.disk, lambda: _unready(index)),
        seeks=seeks,
    )


def _status(parts: Parts) -> StatusRoute:
    waiting = Waiting(
        freshness=parts.index.freshness,
        changes=parts.changes,
        presenting=parts.presenting,
        stays=parts.stays,
        metrics=parts.metrics,
    )
    return StatusRoute(
        freshness=parts.index.freshness,
        tails=parts.index.tails,
        representations=parts.representations,
        waiting=waiting,
    )


def _logs(parts: Parts) -> Logs:
    recent = RecentLogs(parts.disk, parts.root, parts.index.catalogue)
    following = Following(
        root=parts.root,
        visits=parts.visits,
        catalogue=parts.index.catalogue,
        changes=parts.changes,
        streams=parts.streams,
        metrics=parts.metrics,
        recent=recent,
    )
    return Logs(
        root=parts.root,
        visits=parts.visits,
        transfer=parts.transfer,
        following=following,
        metrics=parts.metrics,
        recent=recent,
        slots=parts.log_slots,
    )


def _guard(settings: Settings, parts: Parts) -> Guard:
    rates = {
        "status": settings.limit_status,
        "list": settings.limit_list,
        "events": settings.limit_events,
        "logs": settings.limit_logs,
        "download": settings.limit_download,
    }
    budgets = {name: Budget(name, parse_rate(rate)) for name, rate in rates.items()}
    failures = AuthFailures(parse_rate(settings.limit_auth_failures))
    return Guard(parts.gate, budgets, failures, parts.peers)


def _seeks(parts: Parts) -> Seeks:
    rate = parse_rate(parts.settings.limit_download)
    further = type(rate)(rate.amount * RANGES_PER_DOWNLOAD, rate.multiples)
    return Seeks(Budget("ranges", further), parts.peers, job_id_of)


def _unready(index: Index) -> str | None:
    if index.storage_away:
        return f"The storage is away: {index.storage_away}."
    return None if index.ready.is_set() else "The first index of the jobs is not complete yet."
