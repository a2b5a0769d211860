"""Create the slots of downloads, log requests and long-lived requests."""

from __future__ import annotations

from jobsvc.observe.metrics import Metrics
from jobsvc.service.limits import max_streams
from jobsvc.settings import Settings
from jobsvc.shared_state.connection import SharedStateConnection
from jobsvc.shared_state.slot_leases import SlotLeases
from jobsvc.web.ratelimit.download_slots import MIN_BYTES_PER_S, DownloadSlots
from jobsvc.web.ratelimit.stream_slots import StreamSlots


def slot_leases(connection: SharedStateConnection | None) -> dict[str, SlotLeases]:
    """Create the leases of each kind of slot; none without --shared-state."""
    if connection is None:
        return {}
    return {kind: SlotLeases(connection, kind) for kind in ("downloads", "logs", "streams")}


def stream_slots(
    settings: Settings, metrics: Metrics, max_connections: int, leases: SlotLeases | None
) -> StreamSlots:
    """Create the slots of long-lived requests."""
    return StreamSlots(
        max_streams(settings, max_connections),
        settings.max_streams_per_token,
        lambda limit: metrics.streams_refused.labels(limit).inc(),
        leases=leases,
    )


def download_slots(settings: Settings, metrics: Metrics, leases: SlotLeases | None) -> DownloadSlots:
    """Create the slots of downloads, or of log requests."""
    return DownloadSlots(
        settings.max_downloads,
        settings.max_downloads_per_token,
        on_refused=lambda limit: metrics.downloads_refused.labels(limit).inc(),
        min_pace=_min_pace(settings),
        leases=leases,
    )


def _min_pace(settings: Settings) -> float:
    """Return the rate, in bytes per second, below which a download can lose its slot to another.

    It is at most half of `download_rate`.
    """
    return min(MIN_BYTES_PER_S, settings.download_rate / 2) if settings.download_rate else MIN_BYTES_PER_S
