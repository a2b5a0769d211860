"""Limit long-lived requests: event streams, followed logs and long polls. Belongs to the event loop.

Each occupies a connection for as long as its client likes. The number per token is fixed. An owner, with all
of its tokens, can open another one only while it has fewer than are free: a single owner gets half of all,
two owners get a third each, and n owners 1/(n+1) each. There is always room for another owner, and no share
has to be configured (the dynamic threshold of Choudhury and Hahne, 1998, with a factor of 1). The limits of
an owner and in total are about the connections of this process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Final, NoReturn

from jobsvc.domain.access import Token
from jobsvc.domain.errors import TooManyStreams
from jobsvc.shared_state.slot_leases import LimitReached, SlotLeases

SLOT_RETRY_S: Final = 5
"""Retry-After of a refusal. Advice only: when a stream ends is not known."""


class StreamSlots:
    """Limits the open long-lived requests, in total and for each token and each owner."""

    def __init__(
        self,
        total: int,
        per_token: int,
        on_refused: Callable[[str], object],
        *,
        leases: SlotLeases | None = None,
    ) -> None:
        """`on_refused` is called with the limit that was reached: "token", "owner" or "all".

        With `leases` the limit per token is that of all instances together.
        """
        self.set_limits(total, per_token)
        self._on_refused = on_refused
        self._leases = leases
        self._open = 0
        self._by_token: Counter[str] = Counter()
        self._by_owner: Counter[str] = Counter()

    def set_limits(self, total: int, per_token: int) -> None:
        """Apply other limits from now on; streams that are open remain open, even if there are more."""
        self._total = total
        self._per_token = per_token

    @asynccontextmanager
    async def hold(self, token: Token) -> AsyncIterator[None]:
        """Hold a slot during the block. Raises TooManyStreams if there is none."""
        self._check(token)
        self._open += 1
        self._by_token[token.id] += 1
        self._by_owner[token.owner] += 1
        try:
            with await self._lease(token):
                yield
        finally:
            self._open -= 1
            _decrement(self._by_token, token.id)
            _decrement(self._by_owner, token.owner)

    def _check(self, token: Token) -> None:
        free = self._total - self._open
        if self._by_token[token.id] >= self._per_token:
            self._refuse("token")
        if free <= 0:
            self._refuse("all")
        if self._by_owner[token.owner] >= free:
            self._refuse("owner")

    async def _lease(self, token: Token) -> AbstractContextManager[None]:
        if self._leases is None:
            return nullcontext()
        try:
            return await self._leases.acquire({("token", token.id): self._per_token})
        except LimitReached as exc:
            self._refuse(exc.kind)

    def _refuse(self, limit: str) -> NoReturn:
        self._on_refused(limit)
        details = {
            "token": f"This token already has {self._per_token} streams and long polls open.",
            "all": "The service already has its maximum number of streams and long polls open.",
            "owner": "This owner already has as many streams and long polls open as the service has left.",
        }
        raise TooManyStreams(details[limit], retry_after=SLOT_RETRY_S)


def _decrement(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
