"""Measure the rate of a download."""

from __future__ import annotations

from collections import deque
from typing import Final

_WINDOW_S: Final = 8.0
"""Long enough for a steady figure, short enough to show a change of the line."""


class RateMeter:
    """Bytes per second of the last seconds; bytes of an earlier run do not count."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._received_at = 0.0

    def add(self, now: float, received: int) -> None:
        """Record that `received` bytes are there in all; fewer than before start a new measurement."""
        if self._samples and received < self._samples[-1][1]:
            self._samples.clear()
        if not self._samples or received > self._samples[-1][1]:
            self._received_at = now
        self._samples.append((now, received))
        while len(self._samples) > 2 and self._samples[1][0] < now - _WINDOW_S:  # noqa: PLR2004 - two make a rate
            self._samples.popleft()

    def rate(self, now: float) -> float:
        """Return the bytes per second; 0 while unknown."""
        if not self._samples:
            return 0.0
        started, before = self._samples[0]
        passed = now - started
        return (self._samples[-1][1] - before) / passed if passed > 0 else 0.0

    def idle_s(self, now: float) -> float:
        """Return the seconds since the last byte."""
        return now - self._received_at if self._samples else 0.0
