"""Describe the state of a download in parts that a bar and plain lines both show."""

from __future__ import annotations

import time
from typing import Final

from jobsvc.cli.client.progress.rate import RateMeter
from jobsvc.cli.client.progress.units import (
    format_clock,
    format_duration,
    format_rate,
    format_size,
)
from jobsvc.cli.client.terminal import printable
from jobsvc.client.models import Progress

_STALLED_AFTER_S: Final = 5.0
"""Seconds without a byte after which that is shown instead of the rate."""


class DownloadState:
    """The latest progress of a download, and its rate."""

    def __init__(self) -> None:
        self._meter = RateMeter()
        self._progress: Progress | None = None
        self._verifying_since: float | None = None

    @property
    def progress(self) -> Progress | None:
        """The latest progress; None before the first one."""
        return self._progress

    def update(self, progress: Progress) -> None:
        """Take a new progress; that of other files starts a new measurement."""
        if self._progress is None or _files_of(self._progress) != _files_of(progress):
            self._meter = RateMeter()
        self._progress = progress
        now = time.monotonic()
        self._meter.add(now, progress.received)
        if progress.phase != "verifying":
            self._verifying_since = None
        elif self._verifying_since is None:
            self._verifying_since = now

    @property
    def fraction(self) -> float:
        """The part of the bytes that is there, 0 to 1."""
        progress = self._progress
        if progress is None or progress.total <= 0:
            return 0.0
        return min(1.0, progress.received / progress.total)

    @property
    def percent(self) -> int:
        """The same in percent; 100 only if everything is there."""
        return int(100 * self.fraction)

    @property
    def name(self) -> str:
        """The file that changed last."""
        return printable(self._progress.name) if self._progress is not None else ""

    @property
    def files(self) -> str:
        """How many files are complete; empty for a single file."""
        progress = self._progress
        if progress is None or progress.files_total < 2:  # noqa: PLR2004 - see above
            return ""
        return f"{progress.files_done:,} of {progress.files_total:,} files"

    @property
    def sizes(self) -> str:
        """How many bytes are there, of how many."""
        if self._progress is None:
            return ""
        received, unit = format_size(self._progress.received).split()
        total = format_size(self._progress.total)
        return f"{received} of {total}" if total.endswith(f" {unit}") else f"{received} {unit} of {total}"

    @property
    def speed(self) -> str:
        """The rate; or that nothing arrives, or for how long only digests have been missing."""
        now = time.monotonic()
        if self._verifying_since is not None:
            return f"verifying {format_clock(now - self._verifying_since)}"
        idle = self._meter.idle_s(now)
        if idle >= _STALLED_AFTER_S:
            return f"no data for {format_duration(idle)}"
        return format_rate(self._meter.rate(now))

    @property
    def time_left(self) -> str:
        """The time until all bytes are there at this rate; empty if unknown."""
        progress, now = self._progress, time.monotonic()
        rate = self._meter.rate(now)
        missing = progress.total - progress.received if progress is not None else 0
        if rate <= 0 or missing <= 0 or self._meter.idle_s(now) >= _STALLED_AFTER_S:
            return ""
        return f"{format_clock(max(1.0, missing / rate))} left"


def _files_of(progress: Progress) -> tuple[int, int]:
    """Return what tells one download from the next: a sync has many, each of the files of some jobs."""
    return progress.total, progress.files_total
