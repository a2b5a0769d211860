"""Slots of all instances together, as leases in Redis that end with their process.

A lease is a member of a sorted set, scored by when it expires on the server's clock. An instance extends its
leases while it runs, and registers them again after Redis was down or lost its data.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from jobsvc.shared_state.connection import SharedStateConnection

LEASE_S: Final = 20.0
"""Seconds after which the leases of a process that was killed expire."""
EXTEND_INTERVAL_S: Final = 5.0


class SlotLeases:
    """Leases of one kind of slot: `downloads`, `logs` or `streams`. Belongs to the event loop."""

    def __init__(self, connection: SharedStateConnection, kind: str) -> None:
        raise NotImplementedError

    async def acquire(self, token_id: str, *, per_token: int, total: int | None) -> Callable[[], None] | str:
        """Lease a slot; return the function that releases it, or the limit that is reached: "token" or "all".

        Without Redis the slot is leased in this process only, and registered when Redis can be used again; so
        this never raises. Releasing does not wait.
        """
        raise NotImplementedError

    async def extend(self) -> None:
        """Extend all leases of this process; called every EXTEND_INTERVAL_S and when Redis is up again."""
        raise NotImplementedError


Extend = Callable[[], Awaitable[None]]
