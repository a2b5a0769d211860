"""Connections to a real Redis for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from jobsvc.shared_state.connection import SharedStateConnection


class CountingConnection(SharedStateConnection):
    """A connection that counts the calls that failed."""

    def __init__(self, url: str, instance: str, prefix: str) -> None:
        super().__init__(url, prefix=prefix, instance=instance, on_error=self._count)
        self.errors = 0

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
