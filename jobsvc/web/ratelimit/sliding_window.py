"""Counts requests by the sliding-window counter of `limits`, on the event loop alone, and answers at once.

Per key two numbers are kept: what was admitted in this window of fixed length and in the one before, which
weighs as much as it still overlaps the last `window` seconds. One step tests and counts, so a burst passes
exactly the limit. Memory is bounded: of too many keys those whose window began longest ago are forgotten.
"""
# ruff: noqa: ARG002 - what `limits` passes, the counter was made with

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from math import floor
from typing import Final, NamedTuple

from limits import RateLimitItem
from limits.aio.storage import Storage
from limits.aio.storage.base import SlidingWindowCounterSupport
from limits.aio.strategies import SlidingWindowCounterRateLimiter

MAX_KEYS: Final = 65_536
"""The most keys that are remembered: some 20 MB."""
_ROUNDING: Final = 0.001
"""Seconds; far more than floating-point numbers get wrong here, far less than anyone notices."""


_NO_WINDOW: Final = (-2, 0, 0, 0)


class WindowState(NamedTuple):
    """How one key stands."""

    previous: int
    """Admitted in the window before."""
    current: int
    """Admitted in this window."""
    ends_in: float
    """Seconds until this window ends; above 0, at most `window`."""
    limit: int
    window: int
    """Seconds."""

    def remaining(self) -> int:
        """Say how many requests would pass now."""
        return max(self.limit - floor(self._overlap()) - self.current, 0)

    def wait(self) -> int:
        """Whole seconds after which one more request passes, if none comes before; 0 if one passes now."""
        if self.remaining():
            return 0
        excess = self._overlap() - (self.limit - self.current)
        # The window before weighs steadily less until this one ends, and from then on this one does.
        seconds = excess * self.window / self.previous if self.current < self.limit else self.ends_in
        return floor(seconds + _ROUNDING) + 1

    def _overlap(self) -> float:
        """Estimate how many requests of the window before came in the last `window` seconds."""
        return self.previous * self.ends_in / self.window


class WindowCounter(Storage, SlidingWindowCounterSupport):
    """The counts of one budget; also a storage of `limits`, as far as its sliding window needs one."""

    STORAGE_SCHEME = None

    def __init__(
        self, item: RateLimitItem, *, clock: Callable[[], float] = time.monotonic, keys_cap: int = MAX_KEYS
    ) -> None:
        """Count against `item`; `clock` is in seconds and never goes back."""
        super().__init__()
        self.limit: Final = item.amount
        self.window: Final = item.get_expiry()
        """Seconds."""
        self._clock = clock
        self._keys_cap = keys_cap
        self._entries: OrderedDict[str, list[int]] = OrderedDict()
        """By key: the window's number, admitted in it, in the one before, and relieved. Oldest first."""

    def __len__(self) -> int:
        """Count the keys that are remembered."""
        return len(self._entries)

    def try_acquire(self, key: str) -> bool:
        """Admit one request and count it, or do neither."""
        return self.consume(key) is not None

    def consume(self, key: str) -> tuple[int, float] | None:
        """Do so, and say as `room` does what is left then; None where it was not admitted."""
        now = self._clock() / self.window
        number = int(now)
        entry = self._entries.get(key)
        if entry is None or entry[0] != number:
            entry = self._begin(key, number, entry)
        ends_in = (1 - now % 1) * self.window
        # A sum of integers: a fraction would be rounded up with some numbers and down with others.
        left = self.limit - int(entry[2] * ends_in / self.window) - entry[1]
        if left <= 0:
            return None
        entry[1] += 1
        return left - 1, ends_in

    def refund(self, key: str, each: int) -> bool:
        """Take a request that was admitted out of the count again, but for every `each`-th of a key's.

        Returns whether it was taken out.
        """
        entry = self._entries.get(key)
        if entry is None:
            return False
        entry[3] = (entry[3] + 1) % each
        if not entry[3] or not entry[1]:
            return False
        entry[1] -= 1
        return True

    def window_state(self, key: str) -> WindowState:
        """Say how a key stands, counting nothing."""
        previous, current, ends_in = self._now(key)
        return WindowState(previous, current, ends_in, self.limit, self.window)

    def remaining(self, key: str) -> tuple[int, float]:
        """Say how many requests would pass now and in how many seconds this window ends.

        The standing says it too, at twice the cost, which every answer would pay.
        """
        previous, current, ends_in = self._now(key)
        left = self.limit - int(previous * ends_in / self.window) - current
        return max(left, 0), ends_in

    def _now(self, key: str) -> tuple[int, int, float]:
        """Return a key's counts of the window before and of this one, and the seconds until this one ends."""
        now = self._clock() / self.window
        number, current, previous, _ = self._entries.get(key, _NO_WINDOW)
        if number != int(now):
            previous, current = current if number == int(now) - 1 else 0, 0
        return previous, current, (1 - now % 1) * self.window

    def _begin(self, key: str, number: int, before: list[int] | None) -> list[int]:
        """Begin a window for a key; forget two that count no more, and one more if there are too many."""
        before = before or [0, 0, 0, 0]
        entry = [number, 0, before[1] if before[0] == number - 1 else 0, before[3]]
        self._entries[key] = entry
        self._entries.move_to_end(key)
        for _ in range(2):
            if next(iter(self._entries.values()))[0] < number - 1:
                self._entries.popitem(last=False)
        if len(self._entries) > self._keys_cap:
            self._entries.popitem(last=False)
        return entry

    # What follows is how `limits` asks.

    @property
    def base_exceptions(self) -> type[Exception]:
        """Name the errors of the storage itself: there are none."""
        return ValueError

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Take one; `amount` is 1."""
        return self.try_acquire(key)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return counts and lives of both windows; this one's count lives on through the next."""
        now = self.window_state(key)
        return now.previous, now.ends_in, now.current, now.ends_in + self.window

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget a key."""
        self._entries.pop(key, None)

    async def clear(self, key: str) -> None:
        """Forget a key."""
        self._entries.pop(key, None)

    async def reset(self) -> int:
        """Forget all keys and say how many they were."""
        known = len(self._entries)
        self._entries.clear()
        return known

    async def check(self) -> bool:
        """Say that memory is there."""
        return True

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Belong to the fixed window."""
        raise NotImplementedError

    async def get(self, key: str) -> int:
        """Belong to the fixed window."""
        raise NotImplementedError

    async def get_expiry(self, key: str) -> float:
        """Belong to the fixed window."""
        raise NotImplementedError


class OneStep(SlidingWindowCounterRateLimiter):
    """The strategy for a caller that tests, and then hits without listening: here the test is the hit."""

    def __init__(self, counter: WindowCounter) -> None:
        """Count in `counter`."""
        super().__init__(counter)
        self._counter = counter

    async def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Take one of the single identifier's budget."""
        return self._counter.try_acquire(identifiers[0])

    async def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Do nothing: what was to be counted is."""
        return True
