"""The one place where the service is constructed and joined, started and ended.

Nothing is made at import, nothing is global: everything is handed to whoever needs it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog
from aiohttp import web

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.index.changes import Changes
from jobsvc.index.digests import Digests
from jobsvc.index.live import Index
from jobsvc.observe import log
from jobsvc.observe.audit import DownloadLog
from jobsvc.observe.metrics import Metrics
from jobsvc.settings import Settings
from jobsvc.storage.digest_file import DigestFile
from jobsvc.storage.disk import Disk
from jobsvc.storage.layout import DIGESTS_FILE, LINK_KEY_FILE, TOKENS_FILE
from jobsvc.storage.link_key import BadLinkKey
from jobsvc.storage.reader import JobsRoot
from jobsvc.storage.tokens import BadTokenFile
from jobsvc.web.all_events import AllEvents
from jobsvc.web.download import Download
from jobsvc.web.envelope import Envelope
from jobsvc.web.event_streams import Streams
from jobsvc.web.events import JobEvents
from jobsvc.web.following import Following
from jobsvc.web.gate import Gate
from jobsvc.web.guard import Guard
from jobsvc.web.health import Health
from jobsvc.web.limits import AuthFailures, Budget, parse_rate
from jobsvc.web.link_route import LinkRoute
from jobsvc.web.links import Links
from jobsvc.web.listing import ListRoute
from jobsvc.web.logs import Logs
from jobsvc.web.peer import Peers
from jobsvc.web.presenting import Presenting
from jobsvc.web.representation import Representations
from jobsvc.web.routes import Handlers, add_routes
from jobsvc.web.server import Runner
from jobsvc.web.slots import Slots
from jobsvc.web.status import StatusRoute
from jobsvc.web.stays import Stays
from jobsvc.web.transfer import Transfer
from jobsvc.web.visit import Visits
from jobsvc.web.waiting import Waiting

BODY_CAP: Final = 64 * 1024
"""The largest request body, in bytes."""

LAST_ANSWERS: Final = 0.5
"""Seconds that requests other than downloads have at the end; aiohttp takes them twice, and 0 for no end."""

Context = Callable[[web.Application], AsyncIterator[None]]

_log = structlog.get_logger("jobsvc.service")


class NotStarted(Exception):
    """The service can't begin as it is set up; the message says why."""


def build_app(settings: Settings) -> web.Application:
    """Construct the service; it starts and ends with the application."""
    metrics = Metrics()
    disk = Disk(on_fault=lambda _key, _fault: metrics.storage_unavailable.inc())
    root = JobsRoot(settings.jobs_root, settings.output_roots, settings.status_aliases)
    slots = Slots(
        settings.max_downloads,
        settings.max_downloads_per_token,
        on_refused=lambda cap: metrics.downloads_refused.labels(cap).inc(),
    )
    digests = Digests(
        disk, root, DigestFile(settings.state_dir / DIGESTS_FILE), metrics, busy=lambda: slots.taken > 0
    )
    index = Index(
        disk,
        root,
        max_age=settings.max_age,
        poll_interval=settings.poll_interval,
        watch=settings.watch,
        on_unreadable=lambda _job, wrong: metrics.record_unreadable(wrong),
        # No watch tells of an output that is written to in place: its digest needs a look.
        wary=lambda reading: digests.known(reading) is not None,
        metrics=metrics,
    )
    gate = Gate(settings.state_dir / TOKENS_FILE, disk, on_bad_file=_bad_token_file(metrics))
    links = Links(settings.state_dir / LINK_KEY_FILE, disk, gate)
    downloads = DownloadLog(settings.state_dir, metrics.audit_errors.inc)
    visits = Visits(disk=disk, root=root, catalogue=index.catalogue, freshness=index.freshness)
    transfer = Transfer(
        disk,
        send_timeout=settings.send_timeout,
        rate=settings.download_rate,
        on_held=metrics.download_held.inc,
    )

    representations = Representations(digest_of=digests.known)
    changes, presenting, stays = (
        Changes(index.catalogue),
        Presenting(index.tails, representations),
        Stays(gate),
    )
    streams = Streams(stays, metrics, send_timeout=settings.send_timeout)
    waiting = Waiting(
        freshness=index.freshness, changes=changes, presenting=presenting, stays=stays, metrics=metrics
    )
    app = web.Application(client_max_size=BODY_CAP)
    add_routes(
        app,
        envelope=Envelope(metrics),
        guard=_guard(settings, gate),
        links=links,
        handlers=Handlers(
            listing=ListRoute(index),
            status=StatusRoute(
                freshness=index.freshness,
                tails=index.tails,
                representations=representations,
                waiting=waiting,
            ),
            download=Download(
                disk=disk,
                visits=visits,
                slots=slots,
                transfer=transfer,
                digests=digests,
                log=downloads,
                metrics=metrics,
            ),
            logs=Logs(
                root=root,
                visits=visits,
                transfer=transfer,
                following=Following(
                    root=root,
                    visits=visits,
                    catalogue=index.catalogue,
                    changes=changes,
                    streams=streams,
                    metrics=metrics,
                ),
                metrics=metrics,
            ),
            job_events=JobEvents(
                freshness=index.freshness,
                catalogue=index.catalogue,
                changes=changes,
                presenting=presenting,
                streams=streams,
            ),
            all_events=AllEvents(
                listing=index.listing,
                changes=changes,
                presenting=presenting,
                streams=streams,
                metrics=metrics,
                ready=index.ready,
            ),
            link_route=LinkRoute(freshness=index.freshness, links=links, max_age=settings.max_link_age),
            health=Health(metrics, lambda: _unready(index)),
        ),
    )
    # Begun in this order and ended in reverse: what is needed longest comes first.
    app.cleanup_ctx.append(_storage(disk, downloads))
    app.cleanup_ctx.append(gate.watching)
    app.cleanup_ctx.append(links.keyed)
    app.cleanup_ctx.append(visits.shortened)
    app.cleanup_ctx.append(_indexing(index))
    app.cleanup_ctx.append(_hashing(digests, index))
    app.cleanup_ctx.append(stays.watching)
    app.on_shutdown.append(stays.end)
    app.on_shutdown.append(_let_finish(slots, settings.shutdown_grace))
    return app


def _guard(settings: Settings, gate: Gate) -> Guard:
    rates = {
        "status": settings.limit_status,
        "list": settings.limit_list,
        "logs": settings.limit_logs,
        "download": settings.limit_download,
    }
    budgets = {name: Budget(name, parse_rate(rate)) for name, rate in rates.items()}
    failures = AuthFailures(parse_rate(settings.limit_auth_failures))
    return Guard(gate, budgets, failures, Peers(settings.trusted_proxies))


def _bad_token_file(metrics: Metrics) -> Callable[[Exception], None]:
    def told(wrong: Exception) -> None:
        metrics.token_file_errors.inc()
        _log.error("token-file-unusable", reason=str(wrong), kept="the last good one")

    return told


def _unready(index: Index) -> str | None:
    if index.storage_away:
        return f"The storage is away: {index.storage_away}."
    return None if index.ready.is_set() else "The first index of the jobs is not complete yet."


def _storage(disk: Disk, downloads: DownloadLog) -> Context:
    async def context(_app: web.Application) -> AsyncIterator[None]:
        yield
        with suppress(StorageUnavailable):
            await disk.metadata("*log", downloads.close)
        disk.close()

    return context


def _indexing(index: Index) -> Context:
    async def context(_app: web.Application) -> AsyncIterator[None]:
        async with index.running():
            yield

    return context


def _hashing(digests: Digests, index: Index) -> Context:
    async def context(_app: web.Application) -> AsyncIterator[None]:
        async with digests.running(index.catalogue.more_is_known):
            yield

    return context


def _let_finish(slots: Slots, grace: float) -> Callable[[web.Application], Awaitable[None]]:
    async def wait(_app: web.Application) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await slots.all_free()

    return wait


async def serve(
    settings: Settings, *, ready: Callable[[str], None] | None = None, stop: asyncio.Event | None = None
) -> None:
    """Serve until `stop` is set, by SIGTERM or SIGINT where it is not given; `ready` gets the address.

    Then accept no more, let downloads finish for as long as the grace, and end. NotStarted.
    """
    stop = stop or _told_by_signals()
    runner = Runner(build_app(settings), access_log=None, shutdown_timeout=LAST_ANSWERS)
    try:
        await _begin(runner, settings)
        address = _address(runner)
        _log.info("serving", address=address, jobs_root=str(settings.jobs_root))
        if ready is not None:
            ready(address)
        await stop.wait()
        _log.info("stopping", grace=settings.shutdown_grace)
    finally:
        await runner.cleanup()


async def _begin(runner: web.BaseRunner, settings: Settings) -> None:
    try:
        await runner.setup()
        await web.TCPSite(runner, settings.host, settings.port, backlog=1024).start()
    except (BadTokenFile, BadLinkKey, StorageUnavailable, OSError) as fault:
        raise NotStarted(str(fault)) from fault


def run(settings: Settings, ready: Callable[[str], None] | None = None) -> int:
    """Run the service until it is told to stop; returns the exit code."""
    log.configure()
    main = serve(settings, ready=ready)
    try:
        _run_loop(main)
    except NotStarted as wrong:
        _log.error("not-started", reason=str(wrong))
        return 2
    return 0


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _told_by_signals() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _address(runner: web.BaseRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
