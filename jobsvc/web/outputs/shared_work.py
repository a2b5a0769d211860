"""Do long work once for all requests that wait for it.

A client can request the list of 100,000 files much faster than it can be read, and each list in progress
needs memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class SharedWork(Generic[T]):
    """Does the work of each job one piece at a time, and uses its result for all requests that wait for it.

    A result is never older than the request: only work that started after it is used. Belongs to the event
    loop.
    """

    def __init__(self) -> None:
        self._turns: dict[str, _Turns[T]] = {}

    async def run(self, job_id: str, kind: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `work`, or of the same kind of work that was started since this call.

        Raises what `work` raises; an exception is never shared.
        """
        turns = self._turns.setdefault(job_id, _Turns())
        turns.users += 1
        try:
            return await turns.take(kind, work)
        finally:
            turns.users -= 1
            if not turns.users:
                del self._turns[job_id]


class _Result(NamedTuple, Generic[T]):
    kind: Hashable
    number: int
    value: T


class _Turns(Generic[T]):
    """The work of one job."""

    def __init__(self) -> None:
        self.users = 0
        """Number of requests that wait or work."""
        self._lock = asyncio.Lock()
        self._started = 0
        """Number of pieces of work that were started."""
        self._latest: _Result[T] | None = None

    async def take(self, kind: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Wait for the work in progress, then do this one unless its result is known."""
        started_before = self._started
        async with self._lock:
            known = self._latest
            if known is not None and known.kind == kind and known.number > started_before:
                return known.value
            self._started += 1
            result = _Result(kind, self._started, await work())
            self._latest = result
            return result.value
