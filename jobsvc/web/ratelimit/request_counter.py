"""Count the requests of a budget: in this process, or for all instances together."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import floor
from typing import Protocol

from jobsvc.shared_state.budget_leases import BudgetLeases
from jobsvc.shared_state.connection import SharedStateConnection, SharedStateUnavailable
from jobsvc.web.ratelimit.sliding_window import MAX_KEYS, Rate, WindowCounter


class RequestCounter(Protocol):
    """Counts the requests of each key against one rate. Belongs to the event loop."""

    @property
    def limit(self) -> int:
        """Requests in each `window`."""

    @property
    def window(self) -> int:
        """Length of the window, in seconds."""

    def set_rate(self, rate: Rate) -> None:
        """Apply another rate from now on. Counts in windows of the same length are kept."""

    async def acquire(self, key: str) -> bool:
        """Admit and count one request, or do neither and return False."""

    def consume(self, key: str) -> tuple[int, float] | None:
        """Admit and count one request without waiting; return what `remaining` would afterwards.

        Returns None if it cannot be admitted without waiting; `acquire` decides then.
        """

    def refund(self, key: str, each: int) -> bool:
        """Take an admitted request back out of the count, except every `each`-th one of a key.

        Returns whether it was taken out.
        """

    def remaining(self, key: str) -> tuple[int, float]:
        """Return how many requests would pass now and in how many seconds this window ends."""

    def wait(self, key: str) -> int:
        """Return whole seconds until one more request passes, if none comes before."""


def create_counter(
    name: str,
    rate: Rate,
    shared: SharedStateConnection | None,
    *,
    clock: Callable[[], float] = time.monotonic,
    keys_cap: int = MAX_KEYS,
) -> RequestCounter:
    """Create the counter of a budget, for all instances if there is a connection to Redis."""
    local = WindowCounter(rate, clock=clock, keys_cap=keys_cap)
    if shared is None:
        return local
    return SharedCounter(rate, local, BudgetLeases(shared, name, rate.amount, rate.seconds))


class SharedCounter:
    """Counts for all instances. While Redis cannot be used, each instance counts its share of the rate.

    What the shared count has admitted is counted in this process too, and the other way round, so that a
    failure of Redis does not start another budget.
    """

    def __init__(self, rate: Rate, local: WindowCounter, leases: BudgetLeases) -> None:
        self._rate = rate
        self._local = local
        """Refuses what is above this instance's share."""
        self._leases = leases

    @property
    def limit(self) -> int:
        """Requests in each `window`."""
        return self._rate.amount

    @property
    def window(self) -> int:
        """Length of the window, in seconds."""
        return self._rate.seconds

    def set_rate(self, rate: Rate) -> None:
        """Apply another rate from now on; see RequestCounter."""
        self._rate = rate
        self._local.set_rate(rate)
        self._leases.set_rate(rate.amount, rate.seconds)

    async def acquire(self, key: str) -> bool:
        """Admit and count one request, or do neither and return False; wait for Redis at most briefly."""
        try:
            admitted = await self._leases.acquire(key)
        except SharedStateUnavailable:
            return self._consume_local(key) is not None
        if admitted:
            self._local.count(key)
        return admitted

    def consume(self, key: str) -> tuple[int, float] | None:
        """Admit and count one request that is leased; see RequestCounter."""
        if not self._leases.is_up:
            return self._consume_local(key)
        if not self._leases.spend(key):
            return None
        self._local.count(key)
        return self.remaining(key)

    def _consume_local(self, key: str) -> tuple[int, float] | None:
        left = self._local_with_share(key).consume(key)
        if left is not None:
            self._leases.report_later(key)
        return left

    def refund(self, key: str, each: int) -> bool:
        """Take an admitted request back out of the count; see RequestCounter."""
        if not self._local.refund(key, each):
            return False
        self._leases.refund(key)
        return True

    def remaining(self, key: str) -> tuple[int, float]:
        """Return how many requests would pass, as far as is known here, and when this window ends."""
        return self._leases.state(key) or self._local_with_share(key).remaining(key)

    def wait(self, key: str) -> int:
        """Return whole seconds until one more request passes; see RequestCounter."""
        state = self._leases.state(key)
        if state is None:
            return self._local_with_share(key).wait(key)
        return 1 if state.remaining else floor(state.reset) + 1

    def _local_with_share(self, key: str) -> WindowCounter:
        """Return the count of this process, with this instance's share of the rate as the limit.

        With the whole rate in each instance, they would admit a multiple of it during each outage.
        """
        self._local.set_rate(Rate(self._leases.share(key), self._rate.seconds))
        return self._local
