"""What the service is made of beneath its routes, constructed in the order in which one needs another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Final

import structlog

from jobsvc.index.digests.digest_service import Digests
from jobsvc.index.job_index import Index
from jobsvc.index.queries.subscriptions import Changes
from jobsvc.observe.download_log import DownloadLog
from jobsvc.observe.metrics import Metrics
from jobsvc.service.descriptors import MOST_CONNECTIONS, connections_allowed, descriptor_limit
from jobsvc.settings import Settings
from jobsvc.storage.executor import Disk
from jobsvc.storage.files.os_errors import describe
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.layout import DIGESTS_FILE, LINK_KEY_FILE, TOKEN_USE_FILE, TOKENS_FILE
from jobsvc.storage.processes.record_process import RecordCondenser
from jobsvc.storage.state.digest_file import DigestFile
from jobsvc.web.auth.bearer import Gate
from jobsvc.web.auth.client_address import Peers
from jobsvc.web.auth.permits import Permits
from jobsvc.web.auth.signed_links import Links
from jobsvc.web.auth.token_use import TokenUse
from jobsvc.web.connection.connection_limits import ConnectionLimits
from jobsvc.web.connection.timeouts import ConnectionTimeouts
from jobsvc.web.connection.turns import Turns
from jobsvc.web.file_transfer.body_writer import Transfer
from jobsvc.web.jobs.file_access import Visits
from jobsvc.web.jobs.list_items import ListedForms
from jobsvc.web.jobs.pushed_job import Presenting
from jobsvc.web.jobs.representation import Representations
from jobsvc.web.ratelimit.download_slots import MIN_PACE, Slots
from jobsvc.web.ratelimit.stream_slots import StreamSlots
from jobsvc.web.streaming.event_stream import Streams
from jobsvc.web.streaming.long_lived import Stays

FAULT_LOG_INTERVAL_S: Final = 60.0
"""Seconds between two log lines of the same fault of storage; a metric counts all of them."""

_log = structlog.get_logger("jobsvc.service")


@dataclass(frozen=True, slots=True)
class Parts:
    """All of it."""

    settings: Settings
    metrics: Metrics
    disk: Disk
    root: JobsRoot
    condenser: RecordCondenser
    slots: Slots
    """Of downloads."""
    log_slots: Slots
    digests: Digests
    index: Index
    gate: Gate
    token_use: TokenUse
    peers: Peers
    links: Links
    downloads: DownloadLog
    visits: Visits
    transfer: Transfer
    representations: Representations
    permits: Permits
    changes: Changes
    presenting: Presenting
    listed: ListedForms
    turns: Turns
    stays: Stays
    streams: Streams
    connection_limits: ConnectionLimits
    connection_timeouts: ConnectionTimeouts


def parts_of(settings: Settings) -> Parts:
    """Construct them; nothing runs yet but the download log's thread."""
    metrics = Metrics()
    disk = Disk(on_fault=_storage_fault(metrics))
    metrics.storage_stuck.set_function(disk.stuck)
    condenser = RecordCondenser()
    root = JobsRoot(settings.jobs_root, settings.output_roots, settings.status_aliases, condenser=condenser)
    slots, log_slots = _slots(settings, metrics), _slots(settings, metrics)
    digest_file = DigestFile(settings.state_dir / DIGESTS_FILE)
    digests = Digests(disk, root, digest_file, metrics, busy=lambda: slots.taken > 0)
    index = _index(settings, disk, root, digests, metrics)
    gate = Gate(
        settings.state_dir / TOKENS_FILE,
        disk,
        on_bad_file=_bad_token_file(metrics),
        on_bad_labels=_bad_token_labels(metrics),
    )
    metrics.tokens_expiring_soon.set_function(gate.expiring_soon)
    representations = Representations(digest_of=digests.known, public_url=settings.public_url)
    permits = Permits(gate)
    turns = Turns()
    max_connections = _max_connections(settings)
    stays = Stays(permits, _stream_slots(settings, metrics, max_connections))
    connection_limits = ConnectionLimits(
        max_connections,
        on_closed=_count_closed(metrics),
        on_refused=metrics.connections_refused.inc,
    )
    metrics.connections.set_function(lambda: len(connection_limits.open_connections()))
    return Parts(
        settings=settings,
        metrics=metrics,
        disk=disk,
        root=root,
        condenser=condenser,
        slots=slots,
        log_slots=log_slots,
        digests=digests,
        index=index,
        gate=gate,
        token_use=TokenUse(
            gate, settings.state_dir / TOKEN_USE_FILE, disk, on_error=metrics.token_use_errors.inc
        ),
        peers=Peers(settings.trusted_proxies),
        links=Links(settings.state_dir / LINK_KEY_FILE, disk, gate),
        downloads=DownloadLog(settings.state_dir, metrics.audit_errors.inc),
        visits=Visits(disk=disk, root=root, catalogue=index.catalogue, freshness=index.freshness),
        transfer=Transfer(
            disk,
            permits,
            send_timeout=settings.send_timeout,
            rate=settings.download_rate,
            on_held=metrics.download_held.inc,
        ),
        representations=representations,
        permits=permits,
        changes=Changes(index.catalogue),
        presenting=Presenting(index.tails, representations),
        stays=stays,
        streams=Streams(stays, metrics, turns, send_timeout=settings.send_timeout),
        connection_limits=connection_limits,
        connection_timeouts=ConnectionTimeouts(
            header_timeout=settings.header_timeout,
            send_timeout=settings.send_timeout,
            on_closed=_count_closed(metrics),
        ),
        listed=ListedForms(settings.public_url),
        turns=turns,
    )


def _stream_slots(settings: Settings, metrics: Metrics, max_connections: int) -> StreamSlots:
    """Leave at least half of the connections to everything else."""
    total = min(settings.max_streams, max(max_connections // 2, 1))
    return StreamSlots(
        total, settings.max_streams_per_token, lambda limit: metrics.streams_refused.labels(limit).inc()
    )


def _slots(settings: Settings, metrics: Metrics) -> Slots:
    return Slots(
        settings.max_downloads,
        settings.max_downloads_per_token,
        on_refused=lambda cap: metrics.downloads_refused.labels(cap).inc(),
        min_pace=_min_pace(settings),
    )


def _min_pace(settings: Settings) -> float:
    """Return the pace below which a download gives way: no higher than half of what it is allowed."""
    return min(MIN_PACE, settings.download_rate / 2) if settings.download_rate else MIN_PACE


def _max_connections(settings: Settings) -> int:
    """Return the limit of connections: the one that was set, as far as descriptors allow it."""
    limit = descriptor_limit()
    allowed = connections_allowed(limit, settings.max_downloads)
    if settings.max_connections > allowed:
        _log.warning(
            "max-connections-lowered", given=settings.max_connections, allowed=allowed, descriptors=limit
        )
    return min(settings.max_connections or MOST_CONNECTIONS, allowed)


def _count_closed(metrics: Metrics) -> Callable[[str], None]:
    return lambda reason: metrics.connections_closed.labels(reason).inc()


def _index(settings: Settings, disk: Disk, root: JobsRoot, digests: Digests, metrics: Metrics) -> Index:
    return Index(
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


def _storage_fault(metrics: Metrics) -> Callable[[str, Exception], None]:
    """Count each fault of storage, and log each kind of it once in FAULT_LOG_INTERVAL_S."""
    logged: dict[str, float] = {}

    def told(key: str, fault: Exception) -> None:
        metrics.storage_unavailable.inc()
        reason = (
            describe(fault) if isinstance(fault, OSError) else getattr(fault, "reason", None) or str(fault)
        )
        now = monotonic()
        if now - logged.get(reason, -inf) >= FAULT_LOG_INTERVAL_S:
            logged[reason] = now
            _log.warning("storage-fault", of=key, reason=reason)

    return told


def _bad_token_file(metrics: Metrics) -> Callable[[Exception], None]:
    def told(wrong: Exception) -> None:
        metrics.token_file_errors.inc()
        _log.error("token-file-unusable", reason=str(wrong), kept="the last good one")

    return told


def _bad_token_labels(metrics: Metrics) -> Callable[[Exception], None]:
    def report(fault: Exception) -> None:
        metrics.token_label_errors.inc()
        _log.error("token-labels-unusable", reason=str(fault), effect="tokens have no labels")

    return report
