"""Budgets of all instances together: requests are leased from Redis in parts and spent without waiting.

The count in Redis is the sliding window counter of `limits`: one atomic script, with the server's clock. An
instance leases what requests are waiting for, and some ahead. All instances together lease at most a 20th of
the budget ahead, and less as it runs out, so that little is lost if an instance gets no more requests. A
lease ends with its window.

What an instance admits while Redis cannot be used, and what it has leased when Redis loses its data, is added
to the count in Redis as soon as Redis can be used again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from math import ceil
from time import monotonic
from typing import Final

from jobsvc.shared_state.budget_lease import BudgetLease, SharedBudgetState
from jobsvc.shared_state.budget_window import BudgetWindow
from jobsvc.shared_state.connection import SharedStateConnection, SharedStateUnavailable

MAX_KEYS: Final = 65_536
"""Keys that are remembered, at most: some 40 MB."""
AHEAD_OF_BUDGET: Final = 20
"""All instances together lease at most the budget divided by this ahead,"""
AHEAD_OF_REST: Final = 4
"""and at most what remains of it divided by this."""
MAX_AGE_S: Final = 1.0
"""The count in Redis is looked up again after this time."""
MIN_REFUSAL_S: Final = 0.01
MAX_REFUSAL_S: Final = 10.0
"""A refused key is looked up again after this time: its count may have been removed from Redis."""
MIN_WINDOW_S: Final = 0.02
"""If less is left of a window, nothing is leased ahead in it."""
MAX_REPORTED: Final = 4096
"""Keys that are reported when Redis can be used again; the others, of which fewer requests came, later."""
MAX_REFUSALS: Final = 10
"""Refusals of what the counts in Redis admit; then they are not those of a service."""


class BudgetLeases:
    """Leases of one budget, by key. Belongs to the event loop."""

    def __init__(self, connection: SharedStateConnection, name: str, amount: int, seconds: int) -> None:
        """`name` distinguishes the budgets; `amount` requests in each `seconds` are for all instances."""
        self._connection = connection
        self._name = name
        self._leases: OrderedDict[str, BudgetLease] = OrderedDict()
        self._new = _new_window(amount, seconds)
        connection.on_up(self._report_all)

    def set_rate(self, amount: int, seconds: int) -> None:
        """Apply another rate from now on. The counts in Redis of windows of the same length are kept."""
        if (amount, seconds) != (self._new.amount, self._new.seconds):
            self._new = _new_window(amount, seconds)
            self._leases.clear()

    @property
    def is_up(self) -> bool:
        """Whether Redis can be used."""
        return self._connection.is_up

    def share(self, key: str) -> int:
        """Return how many requests this instance may admit in each period while Redis cannot be used.

        All instances have the same share, but no more than the others had left when Redis was last asked.
        """
        share, lease = ceil(self._new.amount / self._connection.instances), self._leases.get(key)
        if lease is None or monotonic() >= lease.others_until:
            return share
        return max(min(share, self._new.amount - lease.others), 0)

    def spend(self, key: str) -> bool:
        """Spend one leased request without waiting; return whether there was one."""
        lease = self._leases.get(key)
        return lease is not None and self._spend(key, lease)

    async def acquire(self, key: str) -> bool:
        """Spend one request, leasing more if none is left; return whether the budget admits it.

        Raises SharedStateUnavailable: the caller counts for itself.
        """
        lease = self._leases.get(key) or self._add(key)
        if not self.is_up:
            raise SharedStateUnavailable
        if self._spend(key, lease):
            return True
        if monotonic() < lease.refused_until:
            return False
        waiter: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        lease.waiters.append(waiter)
        if lease.renewal is None:
            self._start_renewal(key, lease)
        is_admitted = await waiter
        if is_admitted is None:
            raise SharedStateUnavailable
        return is_admitted

    def refund(self, key: str) -> None:
        """Give one spent request back to the lease."""
        lease = self._leases.get(key)
        if lease is None or monotonic() >= lease.window.ends_at:
            return
        if lease.unreported:
            lease.unreported -= 1
        elif lease.spent > 0:
            lease.spent -= 1
            lease.unspent += 1

    def report_later(self, key: str) -> None:
        """Count one request that was admitted without Redis."""
        lease, now = self._leases.get(key) or self._add(key), monotonic()
        if now >= lease.window.ends_at:
            lease.unspent = lease.spent = lease.unreported = 0
            lease.window, lease.looked_up_at = self._new._replace(ends_at=now + self._new.seconds), now
        lease.unreported += 1

    def state(self, key: str) -> SharedBudgetState | None:
        """Return what is known of a key's budget; None if nothing is, or if Redis cannot be used."""
        lease, now = self._leases.get(key), monotonic()
        if lease is None or not lease.looked_up_at or not self.is_up:
            return None
        unspent = lease.unspent if now < lease.window.ends_at else 0
        window = lease.window.at(now)
        if remaining := unspent + window.remaining(now):
            return SharedBudgetState(remaining, window.ends_at - now)
        return SharedBudgetState(0, window.refused_for(now))

    def _spend(self, key: str, lease: BudgetLease) -> bool:
        if not lease.unspent or (now := monotonic()) >= lease.window.ends_at:
            return False
        if lease.generation != self._connection.generation:
            return False  # what is leased is not counted in Redis any more
        lease.unspent -= 1
        lease.spent += 1
        if lease.unspent <= lease.low and lease.renewal is None and self._wanted(lease, now) > 0:
            self._start_renewal(key, lease)
        return True

    def _add(self, key: str) -> BudgetLease:
        """Remember a key; drop up to two that have expired, and one more if there are too many."""
        expired = monotonic() - 2 * self._new.seconds
        for _ in range(2):
            oldest = next(iter(self._leases.values()), None)
            if oldest is not None and oldest.renewal is None and oldest.looked_up_at < expired:
                self._leases.popitem(last=False)
        if len(self._leases) >= MAX_KEYS:
            self._leases.popitem(last=False)
        lease = self._leases[key] = BudgetLease(self._new)
        return lease

    def _start_renewal(self, key: str, lease: BudgetLease) -> None:
        lease.renewal = asyncio.create_task(self._renew(key, lease))

    async def _renew(self, key: str, lease: BudgetLease) -> None:
        """Renew a lease until no request waits and enough is leased ahead."""
        try:
            while lease.waiters or (lease.unspent <= lease.low and self._wanted(lease, monotonic()) > 0):
                if not await self._connection.call(partial(self._ask, key, lease)):
                    break
        except SharedStateUnavailable:
            pass
        finally:
            lease.renewal = None
            lease.end_waiting(None)

    async def _ask(self, key: str, lease: BudgetLease) -> bool:
        """Lease what is wanted, or what is left if that is less. A late response counts too.

        Returns False if Redis refuses again and again what its counts admit: they are not those of a service.
        """
        await self._report(key, lease)
        leased = await self._lease_up_to(key, lease, lambda: self._wanted(lease, monotonic()))
        if leased is None:
            return False
        self._add_leased(lease, leased)
        return True

    async def _report_all(self) -> None:
        """Report the keys that were used last: other instances must not lease what is spent."""
        for key in list(reversed(self._leases))[:MAX_REPORTED]:
            lease = self._leases.get(key)
            if lease is not None and lease.renewal is None and monotonic() < lease.window.ends_at:
                await self._report(key, lease)

    async def _report(self, key: str, lease: BudgetLease) -> None:
        """Count in Redis what was admitted without it and, if Redis has lost its data, what was leased."""
        now = monotonic()
        is_lost = lease.generation not in {b"", self._connection.generation}
        if is_lost or now >= lease.window.ends_at or now - lease.looked_up_at >= MAX_AGE_S:
            await self._look_up(key, lease)
        if is_lost:
            lease.unreported += lease.spent + lease.unspent
            lease.spent = -lease.unspent
        lease.generation = self._connection.generation
        if unreported := lease.unreported:
            counted = await self._lease_up_to(key, lease, lambda: unreported) or 0
            lease.unreported -= unreported
            # What the budget does not admit any more has used what was leased ahead.
            used = min(lease.unspent, unreported - counted)
            lease.unspent -= used
            lease.spent += counted + used

    async def _lease_up_to(self, key: str, lease: BudgetLease, wanted: Callable[[], int]) -> int | None:
        """Lease what is wanted, or what is left if that is less; return how many.

        Returns None if Redis refuses again and again what its counts admit.
        """
        amount, seconds, *_ = self._new
        storage, refusals = self._connection.storage, 0
        while refusals < MAX_REFUSALS:
            cost = min(wanted(), lease.window.remaining(monotonic()))
            if not cost or await storage.acquire_sliding_window_entry(self._key(key), amount, seconds, cost):
                lease.window = lease.window._replace(current=lease.window.current + cost)
                return cost
            await self._look_up(key, lease)
            # If less remains now, another instance has leased some.
            refusals += lease.window.remaining(monotonic()) >= cost
        return None

    def _key(self, key: str) -> str:
        """Return the name of a count in Redis; `limits` makes it a hash tag."""
        return f"budget/{self._name}/{key}/{self._new.seconds}"

    async def _look_up(self, key: str, lease: BudgetLease) -> None:
        """Look up the count in Redis."""
        now, seconds = monotonic(), self._new.seconds
        counts = await self._connection.storage.get_sliding_window(self._key(key), seconds)
        previous, _, current, expires_in = counts
        # A count is kept for two windows; the first one begins with the first lease.
        ends_at = now + (expires_in - seconds if expires_in else seconds)
        if now >= lease.window.ends_at:
            lease.unspent = lease.spent = lease.unreported = 0
        lease.window = self._new._replace(previous=previous, current=current, ends_at=ends_at)
        lease.looked_up_at = now
        lease.set_others(current - lease.spent - lease.unspent, now)
        if key in self._leases:
            self._leases.move_to_end(key)

    def _add_leased(self, lease: BudgetLease, count: int) -> None:
        """Add requests that were leased, give them to those that wait and keep the others."""
        now = monotonic()
        lease.unspent += count
        lease.admit(lease.unspent)
        lease.low = lease.unspent // 2
        if not lease.unspent and not lease.window.remaining(now):
            refused_s = max(lease.window.refused_for(now), MIN_REFUSAL_S)
            lease.refused_until = now + min(refused_s, MAX_REFUSAL_S)
            lease.end_waiting(False)  # noqa: FBT003 - the result of a future

    def _wanted(self, lease: BudgetLease, now: float) -> int:
        """Return how many requests to lease: those that wait, and some ahead."""
        ahead = min(self._new.amount // AHEAD_OF_BUDGET, lease.window.remaining(now) // AHEAD_OF_REST)
        if 0 < lease.window.ends_at - now < MIN_WINDOW_S:
            ahead = 0
        return max(len(lease.waiters) + ahead // self._connection.instances - lease.unspent, 0)


def _new_window(amount: int, seconds: int) -> BudgetWindow:
    return BudgetWindow(amount, seconds, previous=0, current=0, ends_at=0.0)
