"""Build the aiohttp application: create the components and pass them to the endpoints that need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web

from jobsvc.index.job_index import JobIndex
from jobsvc.service.accept_errors import ACCEPT_ERRORS, AcceptErrors
from jobsvc.service.components import Components, build_components
from jobsvc.service.lifespan import add_lifespan
from jobsvc.service.limits import LIMITS, RANGES, Limits, budget_rates
from jobsvc.settings import Settings
from jobsvc.storage.state.link_record import IssuedLink
from jobsvc.web.app.cors import CrossOrigin
from jobsvc.web.app.guard import Guard
from jobsvc.web.app.middleware import RequestMiddleware
from jobsvc.web.app.routes import Endpoints, add_routes
from jobsvc.web.auth.bearer import AUTHENTICATOR
from jobsvc.web.connection.connection_limits import CONNECTION_LIMITS
from jobsvc.web.connection.timeouts import CONNECTION_TIMEOUTS
from jobsvc.web.endpoints.all_events import AllEventsEndpoint
from jobsvc.web.endpoints.health import HealthEndpoints
from jobsvc.web.endpoints.job_events import JobEventsEndpoint
from jobsvc.web.endpoints.job_list import JobListEndpoint
from jobsvc.web.endpoints.job_log import JobLogEndpoint
from jobsvc.web.endpoints.job_status import JobStatusEndpoint
from jobsvc.web.endpoints.log_follow import LogFollowEndpoint
from jobsvc.web.endpoints.long_poll import LongPoll
from jobsvc.web.endpoints.me import MeEndpoint
from jobsvc.web.endpoints.openapi import OpenApiEndpoint
from jobsvc.web.endpoints.page import PageEndpoint
from jobsvc.web.jobs.recent_logs import RecentLogs
from jobsvc.web.jobs.urls import PublicUrl
from jobsvc.web.outputs.archive import ArchiveEndpoint
from jobsvc.web.outputs.download import DownloadEndpoint
from jobsvc.web.outputs.download_links import DownloadLinksEndpoint
from jobsvc.web.outputs.download_recorder import DownloadRecorder
from jobsvc.web.outputs.file_lists import FileLists
from jobsvc.web.outputs.job_files import JobFilesEndpoint
from jobsvc.web.paths import job_id_of
from jobsvc.web.ratelimit.budgets import AuthFailures, Budget
from jobsvc.web.ratelimit.further_ranges import FurtherRanges
from jobsvc.web.ratelimit.sliding_window import parse_rate

MAX_BODY_BYTES: Final = 64 * 1024
"""Maximum size of a request body, in bytes."""


def build_app(
    settings: Settings, on_indexed: Callable[[], None] | None = None, instance: str | None = None
) -> web.Application:
    """Build the application; the service starts and stops with it.

    `on_indexed` is called once the first index is complete. `instance` is the name of this process, by
    default that of the settings.
    """
    parts = build_components(settings, instance or settings.instance_name())
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    shared = parts.shared_state
    budgets = {name: Budget(name, rate, shared=shared) for name, rate in budget_rates(settings).items()}
    failures = AuthFailures(parse_rate(settings.limit_auth_failures), shared=shared)
    app[LIMITS] = Limits(
        budgets=tuple(budgets.values()),
        failures=failures,
        downloads=(parts.slots, parts.log_slots),
        streams=parts.long_lived.slots,
        max_connections=parts.connection_limits.max_connections,
    )
    further_ranges = FurtherRanges(budgets.pop(RANGES), parts.client_addresses, job_id_of)
    middleware = RequestMiddleware(parts.metrics)
    cross_origin = CrossOrigin(settings.cors_origins, middleware)
    guard = Guard(
        parts.authenticator,
        parts.sessions,
        budgets,
        failures,
        parts.client_addresses,
        fast_lines=cross_origin.fast_lines,
    )
    add_routes(
        app,
        middleware=middleware,
        cross_origin=cross_origin,
        guard=guard,
        sessions=parts.sessions,
        links=parts.links,
        endpoints=_endpoints(parts, guard, further_ranges),
    )
    app[AUTHENTICATOR] = parts.authenticator
    app[CONNECTION_LIMITS] = parts.connection_limits
    app[ACCEPT_ERRORS] = AcceptErrors(
        parts.metrics.accept_errors.inc, parts.connection_limits.close_oldest_idle
    )
    app[CONNECTION_TIMEOUTS] = parts.connection_timeouts
    add_lifespan(app, parts, on_indexed)
    return app


def _endpoints(parts: Components, guard: Guard, further_ranges: FurtherRanges) -> Endpoints:
    index, settings = parts.index, parts.settings
    recorder = DownloadRecorder(parts.download_log, parts.metrics, parts.client_addresses)
    file_lists = FileLists(
        disk=parts.executor, files=parts.files, root=parts.root, on_listed=parts.metrics.files_listed.inc
    )
    archives = ArchiveEndpoint(
        file_lists=file_lists,
        root=parts.root,
        slots=parts.slots,
        body_writer=parts.body_writer,
        recorder=recorder,
        metrics=parts.metrics,
        crc32_table=parts.crc32_table,
    )
    return Endpoints(
        job_list=JobListEndpoint(index, parts.list_items),
        job_status=_job_status(parts),
        download=DownloadEndpoint(
            disk=parts.executor,
            files=parts.files,
            archives=archives,
            slots=parts.slots,
            body_writer=parts.body_writer,
            digests=parts.digests,
            recorder=recorder,
            further_ranges=further_ranges,
        ),
        archives=archives,
        job_files=JobFilesEndpoint(
            disk=parts.executor,
            file_lists=file_lists,
            digests=parts.digests,
            public_url=PublicUrl(settings.public_url, parts.client_addresses),
        ),
        job_log=_job_log(parts),
        job_events=JobEventsEndpoint(
            freshness=index.freshness,
            catalogue=index.catalogue,
            subscriptions=parts.subscriptions,
            push_renderer=parts.push_renderer,
            streams=parts.streams,
        ),
        all_events=AllEventsEndpoint(
            listing=index.listing,
            subscriptions=parts.subscriptions,
            list_items=parts.list_items,
            work_lock=parts.work_lock,
            streams=parts.streams,
            metrics=parts.metrics,
            ready=index.ready,
        ),
        download_links=DownloadLinksEndpoint(
            freshness=index.freshness,
            files=parts.files,
            archives=archives,
            links=parts.links,
            public_url=PublicUrl(settings.public_url, parts.client_addresses),
            max_age=settings.max_link_age,
            on_created=_on_link_created(parts),
        ),
        me=MeEndpoint(guard.budgets),
        openapi=OpenApiEndpoint(),
        health=HealthEndpoints(parts.metrics, parts.executor, lambda: _unready(index), parts.shared_state),
        further_ranges=further_ranges,
        page=None if settings.no_ui else PageEndpoint(),
    )


def _on_link_created(parts: Components) -> Callable[[IssuedLink], None]:
    """Return a function that records a link here and, if there is one, in the shared state."""
    records = [each.record for each in (parts.issued_links, parts.link_exchange) if each is not None]

    def record(link: IssuedLink) -> None:
        for each in records:
            each(link)

    return record


def _job_status(parts: Components) -> JobStatusEndpoint:
    long_poll = LongPoll(
        freshness=parts.index.freshness,
        subscriptions=parts.subscriptions,
        push_renderer=parts.push_renderer,
        long_lived_requests=parts.long_lived,
        metrics=parts.metrics,
    )
    return JobStatusEndpoint(
        freshness=parts.index.freshness,
        log_tails=parts.index.log_tails,
        representations=parts.representations,
        long_poll=long_poll,
    )


def _job_log(parts: Components) -> JobLogEndpoint:
    recent_logs = RecentLogs(parts.executor, parts.root, parts.index.catalogue)
    log_follow = LogFollowEndpoint(
        root=parts.root,
        files=parts.files,
        catalogue=parts.index.catalogue,
        subscriptions=parts.subscriptions,
        streams=parts.streams,
        metrics=parts.metrics,
        recent_logs=recent_logs,
    )
    return JobLogEndpoint(
        root=parts.root,
        files=parts.files,
        body_writer=parts.body_writer,
        log_follow=log_follow,
        metrics=parts.metrics,
        recent_logs=recent_logs,
        slots=parts.log_slots,
    )


def _unready(index: JobIndex) -> str | None:
    if index.storage_unavailable_reason:
        return f"The storage is unavailable: {index.storage_unavailable_reason}."
    return None if index.ready.is_set() else "The first index of the jobs is not complete."
