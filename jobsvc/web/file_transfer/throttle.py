"""Limit one transfer to a rate in bytes per second; waits on the event loop.

Bytes are granted in slices of 0.1 s worth of the rate. A transfer that was slower than the rate keeps at most
0.25 s worth of unused bytes, so that a slow client does not get a large burst later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

SLICE_S: Final = 0.1
"""Size of a slice in seconds at the full rate; each wait is for one slice, or for the rest if smaller."""
BURST_S: Final = 0.25
"""Maximum burst in seconds at the full rate; at least one byte."""


class Throttle:
    """The rate limit of one transfer; it starts without credit, so that reconnecting gains nothing."""

    def __init__(
        self, rate: int, on_throttled: Callable[[float], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`rate` is in bytes per second, above 0; `clock` must be monotonic.

        `on_throttled` is called with the seconds of each wait.
        """
        self._rate = rate
        self._on_throttled = on_throttled
        self._clock = clock
        self._slice = max(int(rate * SLICE_S), 1)
        self._max_credit_s = max(BURST_S, 1 / rate)
        self._paid_until = clock()

    async def acquire(self, remaining: int) -> int:
        """Wait until some of the `remaining` bytes may be sent; return how many.

        Report those that were sent to `consume`.
        """
        started_at = self._clock()
        wait = self.wait(remaining)
        if wait > 0:
            await asyncio.sleep(wait)
            self._on_throttled(self._clock() - started_at)
        return self.available(remaining)

    def wait(self, remaining: int) -> float:
        """Return the seconds until a slice of the `remaining` bytes may be sent; 0 or less if now."""
        return min(self._slice, remaining) / self._rate - (self._clock() - self._paid_until)

    def available(self, remaining: int) -> int:
        """Return how many of the `remaining` bytes may be sent now; at least a slice: timers fire early."""
        now = self._clock()
        self._paid_until = max(self._paid_until, now - self._max_credit_s)
        return min(remaining, max(self._slice, int((now - self._paid_until) * self._rate)))

    def consume(self, count: int) -> None:
        """Record that `count` bytes were sent."""
        self._paid_until += count / self._rate
