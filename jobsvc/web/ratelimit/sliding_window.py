"""Count requests in a sliding window, without waiting. Belongs to the event loop.

Each key has two counts: the requests admitted in this window of fixed length, and those in the previous one,
weighted by its overlap with the last `seconds`. One step tests and counts, so a burst gets exactly the limit.
Memory is bounded: if there are too many keys, those whose window started longest ago are dropped.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from math import floor
from typing import Final, NamedTuple

MAX_KEYS: Final = 65_536
"""Keys that are remembered, at most: some 20 MB."""
_ROUNDING: Final = 0.001
"""Seconds; far more than the floating-point error here, far less than is noticeable."""
_NO_WINDOW: Final = (-2, 0, 0, 0)
_RATE: Final = re.compile("([1-9][0-9]{0,8})/(second|minute|hour|day)", re.ASCII)
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


class Rate(NamedTuple):
    """A limit: `amount` requests in each `seconds`."""

    amount: int
    seconds: int


def parse_rate(text: str) -> Rate:
    """Parse a rate such as "600/minute". Raises ValueError if it is invalid."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError("is not a rate such as 600/minute (N/second, N/minute, N/hour or N/day)")
    return Rate(int(match[1]), _SECONDS[match[2]])


class WindowState(NamedTuple):
    """State of one key."""

    previous: int
    """Requests admitted in the previous window."""
    current: int
    """Requests admitted in this window."""
    ends_in: float
    """Seconds until this window ends; above 0, at most `window`."""
    limit: int
    window: int
    """Seconds."""

    def remaining(self) -> int:
        """Return how many requests would pass now."""
        return max(self.limit - floor(self._overlap()) - self.current, 0)

    def wait(self) -> int:
        """Return whole seconds until one more request passes, if none comes before; 0 if one passes now."""
        if self.remaining():
            return 0
        excess = self._overlap() - (self.limit - self.current)
        # The previous window's weight decreases steadily until this one ends; from then on, this one's does.
        seconds = excess * self.window / self.previous if self.current < self.limit else self.ends_in
        return floor(seconds + _ROUNDING) + 1

    def _overlap(self) -> float:
        """Estimate how many requests of the previous window were in the last `window` seconds."""
        return self.previous * self.ends_in / self.window


class WindowCounter:
    """Counts of one budget."""

    def __init__(
        self, rate: Rate, *, clock: Callable[[], float] = time.monotonic, keys_cap: int = MAX_KEYS
    ) -> None:
        """Count against `rate`; `clock` is in seconds and never goes back."""
        self.limit = rate.amount
        self.window = rate.seconds
        self._clock = clock
        self._keys_cap = keys_cap
        self._entries: OrderedDict[str, list[int]] = OrderedDict()
        """By key: window number, admitted in it, admitted in the one before, refund counter. Oldest first."""

    def set_rate(self, rate: Rate) -> None:
        """Count against another rate from now on; the counts remain, unless its period is another one."""
        if rate.seconds != self.window:
            self._entries.clear()
        self.limit, self.window = rate

    def __len__(self) -> int:
        """Return the number of keys that are remembered."""
        return len(self._entries)

    def try_acquire(self, key: str) -> bool:
        """Admit and count one request, or do neither and return False."""
        return self.consume(key) is not None

    async def acquire(self, key: str) -> bool:
        """Do the same; see RequestCounter."""
        return self.try_acquire(key)

    def count(self, key: str) -> None:
        """Count one request that was admitted elsewhere."""
        number = int(self._clock() / self.window)
        entry = self._entries.get(key)
        if entry is None or entry[0] != number:
            entry = self._begin(key, number, entry)
        entry[1] += 1

    def consume(self, key: str) -> tuple[int, float] | None:
        """Admit and count one request; return what `remaining` would afterwards, None if not admitted."""
        now = self._clock() / self.window
        number = int(now)
        entry = self._entries.get(key)
        if entry is None or entry[0] != number:
            entry = self._begin(key, number, entry)
        ends_in = (1 - now % 1) * self.window
        # A sum of integers: a fraction would be rounded up for some values and down for others.
        left = self.limit - int(entry[2] * ends_in / self.window) - entry[1]
        if left <= 0:
            return None
        entry[1] += 1
        return left - 1, ends_in

    def refund(self, key: str, each: int) -> bool:
        """Take an admitted request back out of the count, except every `each`-th one of a key.

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
        """Return the state of a key without counting a request."""
        previous, current, ends_in = self._now(key)
        return WindowState(previous, current, ends_in, self.limit, self.window)

    def wait(self, key: str) -> int:
        """Return whole seconds until one more request passes, if none comes before; 0 if one passes now."""
        return self.window_state(key).wait()

    def remaining(self, key: str) -> tuple[int, float]:
        """Return how many requests would pass now and in how many seconds this window ends.

        `window_state` has the same at twice the cost, which every response would pay.
        """
        previous, current, ends_in = self._now(key)
        left = self.limit - int(previous * ends_in / self.window) - current
        return max(left, 0), ends_in

    def _now(self, key: str) -> tuple[int, int, float]:
        """Return a key's counts of the previous window and this one, and the seconds until this one ends."""
        now = self._clock() / self.window
        number, current, previous, _ = self._entries.get(key, _NO_WINDOW)
        if number != int(now):
            previous, current = current if number == int(now) - 1 else 0, 0
        return previous, current, (1 - now % 1) * self.window

    def _begin(self, key: str, number: int, before: list[int] | None) -> list[int]:
        """Start a window for a key; drop up to two expired keys, and one more if there are too many."""
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
