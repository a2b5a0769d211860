"""Apply changed limits of the settings to the running service: budgets, slots of downloads and streams."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from jobsvc.settings import OPTIONS, Settings
from jobsvc.web.ratelimit.budgets import AuthFailures, Budget
from jobsvc.web.ratelimit.download_slots import DownloadSlots
from jobsvc.web.ratelimit.further_ranges import RANGES_PER_DOWNLOAD
from jobsvc.web.ratelimit.sliding_window import Rate, parse_rate
from jobsvc.web.ratelimit.stream_slots import StreamSlots

CHANGEABLE: Final = frozenset(
    {
        *(option.field for option in OPTIONS if option.field.startswith("limit_")),
        "max_downloads",
        "max_downloads_per_token",
        "max_streams",
        "max_streams_per_token",
    }
)
"""Fields of Settings that can change while the service runs."""
RANGES: Final = "ranges"
"""Name of the budget for further ranges of an output that is being read."""


def budget_rates(settings: Settings) -> dict[str, Rate]:
    """Return the rate of each budget of tokens, by its name."""
    download = parse_rate(settings.limit_download)
    return {
        "status": parse_rate(settings.limit_status),
        "list": parse_rate(settings.limit_list),
        "events": parse_rate(settings.limit_events),
        "logs": parse_rate(settings.limit_logs),
        "download": download,
        "files": parse_rate(settings.limit_files),
        RANGES: download._replace(amount=download.amount * RANGES_PER_DOWNLOAD),
    }


def max_streams(settings: Settings, max_connections: int) -> int:
    """Return the limit of long-lived requests: they use at most half of the connections."""
    return min(settings.max_streams, max(max_connections // 2, 1))


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits that can change while the service runs."""

    budgets: Collection[Budget]
    failures: AuthFailures
    downloads: Collection[DownloadSlots]
    """Slots of downloads, and of log requests."""
    streams: StreamSlots
    max_connections: int

    def apply(self, settings: Settings) -> None:
        """Apply the limits of these settings; what is in progress goes on."""
        rates = budget_rates(settings)
        for budget in self.budgets:
            budget.set_rate(rates[budget.name])
        self.failures.set_rate(parse_rate(settings.limit_auth_failures))
        for slots in self.downloads:
            slots.set_limits(settings.max_downloads, settings.max_downloads_per_token)
        self.streams.set_limits(max_streams(settings, self.max_connections), settings.max_streams_per_token)


LIMITS: Final = web.AppKey("jobsvc.limits", Limits)
"""On the application: its limits."""
