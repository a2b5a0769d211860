"""Spread work that takes some milliseconds over the iterations of the event loop.

Many streams that start at once, or that send a large event, would otherwise all do a piece of their work in
the same iteration, and every other request would wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class HeavyWorkTurns:
    """Allows one piece of work in each iteration of the loop, in order of arrival."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it during the block, which must not wait for anything."""
        async with self._lock:
            try:
                yield
            finally:
                await asyncio.sleep(0)
