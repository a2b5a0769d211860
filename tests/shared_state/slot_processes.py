"""Slot leases as one process has them, and what Redis has of all processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from jobsvc.shared_state import connection, slot_leases
from jobsvc.shared_state.connection import SharedStateConnection
from jobsvc.shared_state.slot_leases import Lease, LimitKey, LimitReached, SlotLeases
from tests.programs.redis_server import RedisServer
from tests.shared_state.connecting import connected

TOKEN: Final = ("token", "anna-1")


def shorten_times(monkeypatch: pytest.MonkeyPatch, *, lease_s: float = 20.0) -> None:
    """Look for Redis every 50 ms, and extend leases four times before they expire, every 0.2 s at least.

    Calls wait for Redis as long as `set_waits` has set.
    """
    monkeypatch.setattr(connection, "PROBE_INTERVAL_S", 0.05)
    monkeypatch.setattr(slot_leases, "RETRY_INTERVAL_S", 0.05)
    monkeypatch.setattr(slot_leases, "LEASE_S", lease_s)
    monkeypatch.setattr(slot_leases, "EXTEND_INTERVAL_S", min(lease_s / 4, 0.2))


class SlotProcess:
    """The slots that one process holds."""

    def __init__(self, state: SharedStateConnection, leases: SlotLeases) -> None:
        self.state = state
        self.leases = leases
        self.held: list[Lease] = []

    async def take(self, limits: dict[LimitKey, int] | None = None) -> str | None:
        """Take a slot and keep it; return the limit that is reached, or None."""
        try:
            lease = await self.leases.acquire(limits or {TOKEN: 3, ("all",): 100})
        except LimitReached as exc:
            return exc.kind
        self.held.append(lease)
        return None

    def give_back(self) -> None:
        """Release the slot that was taken last."""
        with self.held.pop():
            pass

    async def in_redis(self, *limit: str) -> int:
        """Return how many leases of all processes Redis has for a limit."""
        key = self.state.key("downloads", *(limit or TOKEN))
        return int(await self.state.client.zcard(key))


@asynccontextmanager
async def slot_process(redis: RedisServer) -> AsyncIterator[SlotProcess]:
    """Run what a process needs for its slots; at the end of the block it is as if it had been killed."""
    async with connected(redis.url, "same") as state:
        leases = SlotLeases(state, "downloads")
        async with leases.running():
            yield SlotProcess(state, leases)
