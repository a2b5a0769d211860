"""Holds one stream to a rate: what has not been earned yet does not go out, and is waited for on the loop.

Earned is paid out in slices of a tenth of a second's worth. A stream that could not take its share loses
what is more than a quarter of a second old: nobody gets a burst for having been slow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

SLICE_S: Final = 0.1
"""Seconds' worth of bytes that are waited for at a time, where there are so many left."""
BURST_S: Final = 0.25
"""Seconds' worth of bytes that may go out at once, or a byte, where that is more."""


class Throttle:
    """One stream's rate. It begins with nothing: however often a client comes anew, it gets no more."""

    def __init__(
        self, rate: int, held: Callable[[float], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`rate` in bytes a second, above 0; `held` is told each wait's seconds; `clock` never goes back."""
        self._rate = rate
        self._on_throttled = held
        self._clock = clock
        self._slice = max(int(rate * SLICE_S), 1)
        self._memory = max(BURST_S, 1 / rate)
        self._paid_until = clock()

    async def acquire(self, left: int) -> int:
        """Wait until some of the `left` bytes may go, and say how many; `went` is to be told what did."""
        begun = self._clock()
        wait = self.wait(left)
        if wait > 0:
            await asyncio.sleep(wait)
            self._on_throttled(self._clock() - begun)
        return self.available(left)

    def wait(self, left: int) -> float:
        """Count the seconds until a slice of the `left` bytes is earned; 0 or less if it is."""
        return min(self._slice, left) / self._rate - (self._clock() - self._paid_until)

    def available(self, left: int) -> int:
        """Say how many of the `left` bytes may go now: a slice at least, for a timer may ring a bit early."""
        now = self._clock()
        self._paid_until = max(self._paid_until, now - self._memory)
        return min(left, max(self._slice, int((now - self._paid_until) * self._rate)))

    def consume(self, count: int) -> None:
        """Take note that so many bytes went out."""
        self._paid_until += count / self._rate
