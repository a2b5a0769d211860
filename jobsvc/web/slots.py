"""Caps the downloads under way, a token's and all; lives on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final

from jobsvc.domain.errors import TooManyDownloads

RETRY_AFTER: Final = 5
"""Seconds; nobody knows when a download ends, so this is advice and no promise."""
MOMENT: Final = 0.05
"""Seconds that a slot takes at most to be given back."""


class Slots:
    """So many downloads at once, and of these so many for one token."""

    def __init__(self, most: int, most_per_token: int, on_refused: Callable[[str], object]) -> None:
        """`on_refused` is told whose cap, "token" or "all", each download was over."""
        self._most = most
        self._most_per_token = most_per_token
        self._on_refused = on_refused
        self._by_token: dict[str, int] = {}
        self.taken = 0
        """How many downloads are under way."""
        self._holders: set[asyncio.Task[Any] | None] = set()
        self._free = asyncio.Event()
        self._free.set()
        self._given_back = asyncio.Event()
        """The next time that a slot is."""

    async def all_free(self) -> None:
        """Wait until no download is under way."""
        await self._free.wait()

    async def clear(self, patience: float) -> None:
        """Cancel every download that is under way, and wait at most `patience` seconds for their ends."""
        for task in self._holders:
            if task is not None:
                task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.all_free()

    def free(self, token_id: str) -> bool:
        """Whether a token could take a slot now."""
        return self._by_token.get(token_id, 0) < self._most_per_token and self.taken < self._most

    async def moment(self, token_id: str) -> None:
        """Wait for a slot that is being given back, and no longer: a client may have all before we know."""
        if self.free(token_id):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(MOMENT):
                while not self.free(token_id):
                    await self._given_back.wait()

    def take(self, token_id: str) -> AbstractContextManager[None]:
        """Hold a slot while the block runs; TooManyDownloads where there is none."""
        if self._by_token.get(token_id, 0) >= self._most_per_token:
            self._on_refused("token")
            raise TooManyDownloads(
                f"This token has {self._most_per_token} downloads under way already.", retry_after=RETRY_AFTER
            )
        if self.taken >= self._most:
            self._on_refused("all")
            raise TooManyDownloads(
                "The service has as many downloads under way as it takes.", retry_after=RETRY_AFTER
            )
        return self.hold(token_id)

    @contextmanager
    def hold(self, token_id: str) -> Iterator[None]:
        """Hold a slot while the block runs, also over the cap: for what was begun when one was free."""
        self.taken += 1
        self._by_token[token_id] = self._by_token.get(token_id, 0) + 1
        self._holders.add(task := asyncio.current_task())
        self._free.clear()
        try:
            yield
        finally:
            self._holders.discard(task)
            self.taken -= 1
            self._by_token[token_id] -= 1
            if not self._by_token[token_id]:
                del self._by_token[token_id]
            if not self.taken:
                self._free.set()
            self._given_back.set()
            self._given_back = asyncio.Event()
