"""The count of one key's budget in Redis, as it was looked up: a sliding window counter."""

from __future__ import annotations

from math import floor
from typing import Final, NamedTuple

_ROUNDING: Final = 1e-6


class BudgetWindow(NamedTuple):
    """Counts of the previous window and of the current one; times are those of time.monotonic()."""

    amount: int
    """Requests in each `seconds`."""
    seconds: int
    previous: int
    current: int
    ends_at: float
    """End of the current window."""

    def at(self, now: float) -> BudgetWindow:
        """Return the window at a later time, if nothing is counted meanwhile."""
        if now < self.ends_at:
            return self
        if now < self.ends_at + self.seconds:
            return self._replace(previous=self.current, current=0, ends_at=self.ends_at + self.seconds)
        return self._replace(previous=0, current=0, ends_at=now + self.seconds)

    def remaining(self, now: float) -> int:
        """Return how many requests would pass."""
        _, seconds, previous, current, ends_at = self.at(now)
        # Redis rounds down too; here the product must not be the smaller one.
        overlap = floor(previous * (ends_at - now) / seconds + _ROUNDING)
        return max(self.amount - overlap - current, 0)

    def refused_for(self, now: float) -> float:
        """Return the seconds until a request passes, if none remains now."""
        amount, seconds, previous, current, ends_at = self.at(now)
        if current >= amount or not previous:
            return ends_at - now
        # The weight of the previous window decreases until one remains.
        return max(ends_at - now - (amount - current) * seconds / previous, 0.0)
