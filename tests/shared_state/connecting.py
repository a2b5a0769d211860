"""Connections to a real Redis for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from aiohttp import web

from jobsvc.shared_state.connection import WAIT_S, SharedStateConnection

T = TypeVar("T")


class CountingConnection(SharedStateConnection):
    """A connection that counts the calls that failed."""

    wait_s = WAIT_S
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
