"""One key's budget as one instance knows it: what it has leased, and the count in Redis."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from jobsvc.shared_state.budget_window import BudgetWindow


class SharedBudgetState(NamedTuple):
    """What is known of one key's budget."""

    remaining: int
    """Requests that would pass: leased here and unspent, and left in Redis when this instance last asked."""
    reset: float
    """Seconds until the window ends or, if none remain, until one request may pass."""


class BudgetLease:
    """What this instance has leased of one key in the current window, and the count in Redis."""

    __slots__ = (
        "generation",
        "looked_up_at",
        "low",
        "others",
        "others_until",
        "refused_until",
        "renewal",
        "spent",
        "unreported",
        "unspent",
        "waiters",
        "window",
    )

    def __init__(self, window: BudgetWindow) -> None:
        self.window = window
        self.looked_up_at = self.refused_until = 0.0
        self.unspent = self.spent = 0
        """Both together are counted in Redis."""
        self.unreported = 0
        """Admitted here in this window and not counted in Redis."""
        self.others, self.others_until = 0, 0.0
        """What other instances have leased, as far as is known, and the end of the window that it is of."""
        self.generation = b""
        """That of the count in Redis; see SharedStateConnection."""
        self.low = 0
        """The lease is renewed once so many are unspent."""
        self.waiters: deque[asyncio.Future[bool | None]] = deque()
        """Requests that wait for Redis; the result is whether they are admitted, None without an answer."""
        self.renewal: asyncio.Task[None] | None = None

    def admit(self, count: int) -> None:
        """Give leased requests to those that wait, except to those that were cancelled."""
        for _ in range(min(count, len(self.waiters))):
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(True)
                self.unspent -= 1
                self.spent += 1

    def set_others(self, count: int, now: float) -> None:
        """Set what other instances have leased, unless it is less than before: Redis has then lost data."""
        if now >= self.others_until or count > self.others:
            self.others, self.others_until = max(count, 0), self.window.ends_at

    def end_waiting(self, result: bool | None) -> None:  # noqa: FBT001 - the result of a future
        """Answer all requests that wait."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(result)
