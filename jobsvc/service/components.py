"""Create the components below the routes, in the order of their dependencies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from jobsvc.index import index_metrics
from jobsvc.index.digests.digest_service import DigestService
from jobsvc.index.job_index import JobIndex
from jobsvc.index.queries.subscriptions import Subscriptions
from jobsvc.observe.download_log import DownloadLog
from jobsvc.observe.metrics import Metrics
from jobsvc.service.descriptors import DEFAULT_MAX_CONNECTIONS, connections_allowed, descriptor_limit
from jobsvc.service.fault_reports import (
    bad_revoked_links,
    bad_token_file,
    bad_token_labels,
    storage_fault,
)
from jobsvc.service.slots import download_slots, slot_leases, stream_slots
from jobsvc.settings import Settings
from jobsvc.shared_state.connection import SharedStateConnection
from jobsvc.shared_state.digest_exchange import DigestExchange
from jobsvc.shared_state.link_exchange import LinkExchange
from jobsvc.shared_state.slot_leases import SlotLeases
from jobsvc.storage.archive.crc32 import Crc32Table
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.layout import (
    DIGESTS_FILE,
    DOWNLOADS_FILE,
    LINK_KEY_FILE,
    LINKS_FILE,
    REVOKED_LINKS_FILE,
    TOKEN_USE_FILE,
    TOKENS_FILE,
    instance_file,
)
from jobsvc.storage.processes.record_process import RecordProcessClient
from jobsvc.storage.state.digest_file import DigestFile
from jobsvc.storage.state.links_file import LinksFile
from jobsvc.web.auth.bearer import TokenAuthenticator
from jobsvc.web.auth.client_address import ClientAddresses
from jobsvc.web.auth.issued_links import IssuedLinks
from jobsvc.web.auth.permits import Permits
from jobsvc.web.auth.revoked_links import RevokedLinks
from jobsvc.web.auth.sessions import Sessions
from jobsvc.web.auth.signed_links import SignedLinks
from jobsvc.web.auth.signing_key import SigningKey
from jobsvc.web.auth.token_use import TokenUse
from jobsvc.web.connection.connection_limits import ConnectionLimits
from jobsvc.web.connection.fair_scheduling import YieldingLock
from jobsvc.web.connection.timeouts import ConnectionTimeouts
from jobsvc.web.file_transfer.body_writer import BodyWriter
from jobsvc.web.jobs.file_access import JobFileAccess
from jobsvc.web.jobs.list_items import ListItemCaches
from jobsvc.web.jobs.representation import PushRenderer, RepresentationCache
from jobsvc.web.ratelimit.download_slots import DownloadSlots
from jobsvc.web.streaming.event_stream import EventStreams
from jobsvc.web.streaming.long_lived import LongLivedRequests

log = structlog.get_logger("jobsvc.service")


@dataclass(frozen=True, slots=True)
class Components:
    """All components of the service."""

    settings: Settings
    metrics: Metrics
    shared_state: SharedStateConnection | None
    """None without --shared-state."""
    slot_leases: dict[str, SlotLeases]
    """By kind of slot; empty without --shared-state."""
    executor: StorageExecutor
    root: JobsRoot
    record_process: RecordProcessClient
    slots: DownloadSlots
    """Slots of downloads; `log_slots` are those of log requests."""
    log_slots: DownloadSlots
    digests: DigestService
    crc32_table: Crc32Table
    index: JobIndex
    authenticator: TokenAuthenticator
    token_use: TokenUse
    client_addresses: ClientAddresses
    signing_key: SigningKey
    sessions: Sessions
    links: SignedLinks
    revoked_links: RevokedLinks
    issued_links: IssuedLinks
    link_exchange: LinkExchange | None
    """None without --shared-state."""
    download_log: DownloadLog
    files: JobFileAccess
    body_writer: BodyWriter
    representations: RepresentationCache
    permits: Permits
    subscriptions: Subscriptions
    push_renderer: PushRenderer
    list_items: ListItemCaches
    work_lock: YieldingLock
    long_lived: LongLivedRequests
    streams: EventStreams
    connection_limits: ConnectionLimits
    connection_timeouts: ConnectionTimeouts


def build_components(settings: Settings, instance: str) -> Components:
    """Create all components. Nothing is started except the download log's thread.

    `instance` is the name of this process.
    """
    metrics = Metrics()
    metrics.name_instance(instance)
    shared_state = _shared_state(settings, metrics, instance)
    disk = StorageExecutor(on_fault=storage_fault(metrics))
    metrics.storage_stuck.set_function(disk.stuck_threads)
    record_process = RecordProcessClient()
    root = JobsRoot(
        settings.jobs_root, settings.output_roots, settings.status_aliases, record_process=record_process
    )
    leases = slot_leases(shared_state)
    slots, log_slots = (download_slots(settings, metrics, leases.get(kind)) for kind in ("downloads", "logs"))
    metrics.downloads_in_progress.set_function(lambda: slots.taken)
    digest_file = DigestFile(settings.state_dir / instance_file(DIGESTS_FILE, settings.instance))
    crc32_table = Crc32Table()
    digests = DigestService(
        disk,
        root,
        digest_file,
        metrics,
        is_busy=lambda: slots.taken > 0,
        on_crc32=crc32_table.put,
        exchange=DigestExchange(shared_state) if shared_state else None,
    )
    index = _index(settings, disk, root, digests, metrics)
    secrets_shared = settings.secrets_dir is not None
    authenticator = TokenAuthenticator(
        settings.secrets_folder / TOKENS_FILE,
        disk,
        shared=secrets_shared,
        on_bad_file=bad_token_file(metrics),
        on_bad_labels=bad_token_labels(metrics),
    )
    metrics.tokens_expiring_soon.set_function(authenticator.expiring_soon)
    representations = RepresentationCache(
        digest_of=digests.known, stalled=index.stalled, public_url=settings.public_url
    )
    revoked_links = RevokedLinks(
        settings.secrets_folder / REVOKED_LINKS_FILE,
        disk,
        shared=secrets_shared,
        on_bad_file=bad_revoked_links(metrics),
    )
    client_addresses = ClientAddresses(settings.trusted_proxies)
    signing_key = SigningKey(settings.secrets_folder / LINK_KEY_FILE, disk, shared=secrets_shared)
    sessions = Sessions(
        signing_key,
        authenticator,
        client_addresses,
        public_url=settings.public_url,
        enabled=not settings.no_ui,
    )
    permits = Permits(authenticator, revoked_links)
    work_lock = YieldingLock()
    max_connections = _max_connections(settings)
    long_lived = LongLivedRequests(
        permits, stream_slots(settings, metrics, max_connections, leases.get("streams"))
    )
    connection_limits = ConnectionLimits(
        max_connections,
        on_closed=_count_closed(metrics),
        on_refused=metrics.connections_refused.inc,
    )
    metrics.connections.set_function(lambda: len(connection_limits.open_connections()))
    return Components(
        settings=settings,
        metrics=metrics,
        shared_state=shared_state,
        slot_leases=leases,
        executor=disk,
        root=root,
        record_process=record_process,
        slots=slots,
        log_slots=log_slots,
        digests=digests,
        crc32_table=crc32_table,
        index=index,
        authenticator=authenticator,
        token_use=TokenUse(
            authenticator, settings.state_dir / TOKEN_USE_FILE, disk, on_error=metrics.token_use_errors.inc
        ),
        client_addresses=client_addresses,
        signing_key=signing_key,
        sessions=sessions,
        links=SignedLinks(signing_key, sessions, authenticator, revoked=revoked_links),
        revoked_links=revoked_links,
        link_exchange=_link_exchange(shared_state, revoked_links),
        issued_links=IssuedLinks(
            LinksFile(settings.state_dir / LINKS_FILE), disk, metrics.issued_links_errors.inc
        ),
        download_log=DownloadLog(
            settings.state_dir / instance_file(DOWNLOADS_FILE, settings.instance),
            metrics.download_log_errors.inc,
            instance=instance,
        ),
        files=JobFileAccess(
            disk=disk, root=root, catalogue=index.catalogue, updater=index.updater, freshness=index.freshness
        ),
        body_writer=BodyWriter(
            disk,
            permits,
            send_timeout=settings.send_timeout,
            rate=settings.download_rate,
            on_throttled=metrics.download_throttled.inc,
        ),
        representations=representations,
        permits=permits,
        subscriptions=Subscriptions(index.catalogue, index.journal),
        push_renderer=PushRenderer(index.log_tails, representations),
        long_lived=long_lived,
        streams=EventStreams(long_lived, metrics, work_lock, send_timeout=settings.send_timeout),
        connection_limits=connection_limits,
        connection_timeouts=ConnectionTimeouts(
            header_timeout=settings.header_timeout,
            send_timeout=settings.send_timeout,
            on_closed=_count_closed(metrics),
        ),
        list_items=ListItemCaches(settings.public_url, index.stalled),
        work_lock=work_lock,
    )


def _link_exchange(
    shared_state: SharedStateConnection | None, revoked_links: RevokedLinks
) -> LinkExchange | None:
    if shared_state is None:
        return None
    return LinkExchange(shared_state, known=revoked_links.known, on_revoked=revoked_links.add)


def _shared_state(settings: Settings, metrics: Metrics, instance: str) -> SharedStateConnection | None:
    if not settings.shared_state:
        return None
    connection = SharedStateConnection(
        settings.shared_state,
        prefix=settings.shared_state_prefix,
        instance=instance,
        on_error=metrics.shared_state_errors.inc,
    )
    metrics.shared_state_up.set_function(lambda: connection.is_up)
    return connection


def _max_connections(settings: Settings) -> int:
    """Return the connection limit: the configured one, lowered to what the descriptor limit allows."""
    limit = descriptor_limit()
    allowed = connections_allowed(limit, settings.max_downloads)
    if settings.max_connections > allowed:
        log.warning(
            "max-connections-lowered", given=settings.max_connections, allowed=allowed, descriptors=limit
        )
    return min(settings.max_connections or DEFAULT_MAX_CONNECTIONS, allowed)


def _count_closed(metrics: Metrics) -> Callable[[str], None]:
    return lambda reason: metrics.connections_closed.labels(reason).inc()


def _index(
    settings: Settings, disk: StorageExecutor, root: JobsRoot, digests: DigestService, metrics: Metrics
) -> JobIndex:
    index = JobIndex(
        disk,
        root,
        metrics,
        max_age=settings.max_age,
        poll_interval=settings.poll_interval,
        stalled_after=settings.stalled_after,
        watch=settings.watch,
        # Watches do not report in-place writes to an output, so a job with a known digest is rechecked.
        needs_recheck=lambda snapshot: digests.known(snapshot) is not None,
    )
    index_metrics.register(index, metrics)
    return index
