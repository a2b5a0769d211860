"""Spread work that takes some milliseconds over the iterations of the event loop.

Many streams that start at once, or that send a large event, would otherwise all do a piece of their work in
the same iteration, and every other request would wait for all of them.
"""

from __future__ import annotations

import asyncio


class YieldingLock:
    """A lock with at most one holder in each iteration of the event loop, in order of arrival.

    The holder must not wait for anything.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_exc: object) -> None:
        try:
            await asyncio.sleep(0)
        finally:
            self._lock.release()
