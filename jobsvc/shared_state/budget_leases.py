"""Budgets of all instances together: requests are leased from Redis in parts and spent without waiting.

The count in Redis is the sliding window counter of `limits`: one atomic script, with the server's clock.
"""

from __future__ import annotations

from typing import NamedTuple

from jobsvc.shared_state.connection import SharedStateConnection


class SharedBudgetState(NamedTuple):
    """What is known of one key's budget."""

    remaining: int
    """Requests that would pass: leased here and unspent, and left in Redis when this instance last asked."""
    reset: float
    """Seconds until the window ends or, if none remain, until one request may pass."""


class BudgetLeases:
    """Leases of one budget, by key. Belongs to the event loop."""

    def __init__(self, connection: SharedStateConnection, name: str, amount: int, seconds: int) -> None:
        """`name` distinguishes the budgets; `amount` requests in each `seconds` are for all instances."""
        raise NotImplementedError

    def spend(self, key: str) -> bool:
        """Spend one leased request without waiting; return whether there was one."""
        raise NotImplementedError

    async def acquire(self, key: str) -> bool:
        """Spend one request, leasing more if none is left; return whether the budget admits it.

        Raises SharedStateUnavailable: the caller counts for itself.
        """
        raise NotImplementedError

    def refund(self, key: str) -> None:
        """Give one spent request back to the lease."""
        raise NotImplementedError

    def state(self, key: str) -> SharedBudgetState | None:
        """Return what is known of a key's budget; None if nothing is, or if Redis cannot be used."""
        raise NotImplementedError
