"""Connections to a real Redis for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import pytest
from aiohttp import web

from jobsvc.shared_state import connection as connection_module
from jobsvc.shared_state import digest_exchange, link_exchange, slot_leases
from jobsvc.shared_state.connection import WAIT_S, SharedStateConnection

T = TypeVar("T")


PATIENCE_S: Final = 15.0
"""On a busy machine a call takes long, and is no outage."""


def set_waits(
    monkeypatch: pytest.MonkeyPatch, wait_s: float = PATIENCE_S, timeout_s: float = PATIENCE_S
) -> None:
    """Set how long calls and probes wait for Redis, and how much later a call has failed.

    By default a busy machine is no outage; tests in which Redis hangs set short times.
    """
    monkeypatch.setattr(connection_module, "WAIT_S", wait_s)
    for module in (connection_module, digest_exchange, link_exchange, slot_leases):
        monkeypatch.setattr(module, "TIMEOUT_S", timeout_s)
    monkeypatch.setattr(CountingConnection, "wait_s", wait_s)
    monkeypatch.setattr(SharedStateConnection.call, "__kwdefaults__", {"wait_s": wait_s})


class CountingConnection(SharedStateConnection):
    """A connection that counts the calls that failed."""

    wait_s: float = WAIT_S
    """Maximum time that a call waits, by default; longer for tests of counts on a busy machine."""

    def __init__(self, url: str, instance: str, prefix: str) -> None:
        super().__init__(url, prefix=prefix, instance=instance, on_error=self._count)
        self.errors = 0

    async def call(self, operation: Callable[[], Awaitable[T]], *, wait_s: float | None = None) -> T:
        return await super().call(operation, wait_s=wait_s or self.wait_s)

    def _count(self) -> None:
        self.errors += 1


@asynccontextmanager
async def connected(
    url: str, instance: str = "a", *, prefix: str = "jobsvc"
) -> AsyncIterator[CountingConnection]:
    """Connect during a block, as the service does while it runs."""
    connection = CountingConnection(url, instance, prefix)
    context = aiter(connection.cleanup_ctx(web.Application()))
    await anext(context)
    try:
        yield connection
    finally:
        await anext(context, None)
