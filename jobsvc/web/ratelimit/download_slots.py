"""Limit the downloads in progress, per token, per owner and in total. Belongs to the event loop.

If all slots of this process are in use, its slowest download below a minimum pace is ended for the next one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from operator import itemgetter
from time import monotonic
from typing import Any, Final, NoReturn, Protocol, TypeVar

import structlog
from aiohttp import hdrs, web

from jobsvc.domain.access import Token
from jobsvc.domain.errors import TooManyDownloads
from jobsvc.shared_state.slot_leases import LimitReached, SlotLeases
from jobsvc.web.auth.bearer import TOKEN

SLOT_RETRY_S: Final = 5
"""Retry-After of a refusal. Advice only: when a download ends is not known."""
BRIEF_WAIT_S: Final = 0.05
"""Time that the release of a slot takes, at most."""
MIN_PER_OWNER: Final = 16
"""An owner can use half of all slots, and never fewer than this."""
MIN_BYTES_PER_S: Final = 65_536
"""A slower download is ended if all slots are in use and another one is needed."""
PACE_PERIOD_S: Final = 30.0
"""Time over which the pace of a download is measured."""

log = structlog.get_logger("jobsvc.web")


class Transfer(Protocol):
    """Interface of a transfer that the slots need."""

    @property
    def key(self) -> str:
        """The job's id."""

    def acked_bytes(self) -> int:
        """Return the number of bytes that the client's system has acknowledged."""

    def end_early(self) -> None:
        """End the transfer early."""


class ResponseFile(Protocol):
    """A file that was opened for a response."""

    @property
    def has_body(self) -> bool:
        """Whether the response to a GET has the file, or part of it, as its body."""


F = TypeVar("F", bound=ResponseFile)


class Slot:
    """One download in progress."""

    __slots__ = ("_measured_at", "_measured_bytes", "pace", "task", "token", "transfer")

    def __init__(self, token: Token) -> None:
        self.token = token
        self.task: asyncio.Task[Any] | None = asyncio.current_task()
        self.transfer: Transfer | None = None
        """The transfer, once it is known."""
        self.pace: float | None = None
        """Bytes per second over the last period; None before the first has passed."""
        self._measured_at = monotonic()
        self._measured_bytes = 0

    def measure(self, now: float) -> None:
        """Measure the pace if a period has passed."""
        if now - self._measured_at >= PACE_PERIOD_S and self.transfer is not None:
            acked = self.transfer.acked_bytes()
            self.pace = (acked - self._measured_bytes) / (now - self._measured_at)
            self._measured_at, self._measured_bytes = now, acked


class DownloadSlots:
    """Limits the downloads at once, in total and for each token and each owner."""

    def __init__(
        self,
        total: int,
        per_token: int,
        on_refused: Callable[[str], object],
        *,
        min_pace: float = MIN_BYTES_PER_S,
        leases: SlotLeases | None = None,
    ) -> None:
        """`on_refused` is called with the limit, "token", "owner" or "all", that a download exceeded.

        With `leases` the limits are those of all instances together.
        """
        self.set_limits(total, per_token)
        self._on_refused = on_refused
        self._min_pace = min_pace
        self._leases = leases
        self._by_token: Counter[str] = Counter()
        self._by_owner: Counter[str] = Counter()
        self.taken = 0
        """Number of downloads in progress."""
        self._held: set[Slot] = set()
        self._all_released = asyncio.Event()
        self._all_released.set()
        self._slot_released = asyncio.Event()
        """Set when the next slot is released, and then replaced."""

    def set_limits(self, total: int, per_token: int) -> None:
        """Apply other limits from now on; downloads in progress go on, even if there are more."""
        self._max = total
        self._max_per_token = per_token
        self._max_per_owner = max(total // 2, MIN_PER_OWNER)

    async def wait_all_released(self) -> None:
        """Wait until no download is in progress."""
        await self._all_released.wait()

    async def cancel_all(self, timeout_s: float) -> None:
        """Cancel every download in progress, and wait at most `timeout_s` until they have ended."""
        for slot in self._held:
            if slot.task is not None:
                slot.task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.wait_all_released()

    def has_slot_for(self, token: Token) -> bool:
        """Return whether a token could get a slot now."""
        return self.taken < self._max and self._may_have_more(token)

    def _may_have_more(self, token: Token) -> bool:
        by_token, by_owner = self._by_token.get(token.id, 0), self._by_owner.get(token.owner, 0)
        return by_token < self._max_per_token and by_owner < self._max_per_owner

    async def wait_briefly(self, token: Token) -> None:
        """Wait at most BRIEF_WAIT_S for a slot that is being released.

        A client can have received a whole download before the service knows.
        """
        if self.has_slot_for(token):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(BRIEF_WAIT_S):
                while not self.has_slot_for(token):
                    await self._slot_released.wait()

    async def respond(
        self,
        request: web.Request,
        open_file: Callable[[], Awaitable[F]],
        answer: Callable[[F, Slot | None], Awaitable[web.StreamResponse]],
        release: Callable[[F], object],
    ) -> web.StreamResponse:
        """Respond by `answer`, with a file that `open_file` opens and a slot; None if no body is sent.

        If all slots are in use, the file is opened first, so that another download is ended only for a
        response with a body. Raises TooManyDownloads if there is no slot; `release` closes the file then.
        """
        token = request[TOKEN]
        if request.method != hdrs.METH_GET:
            return await answer(await open_file(), None)
        if not self._is_full_for_all(token):
            await self.wait_briefly(token)
            async with self.acquire(token) as slot:
                return await answer(await open_file(), slot)
        file = await open_file()
        if not file.has_body:
            return await answer(file, None)
        async with AsyncExitStack() as held:
            try:
                if self._is_full_for_all(token):
                    self._end_slowest()
                await self.wait_briefly(token)
                slot = await held.enter_async_context(self.acquire(token))
            except BaseException:
                release(file)
                raise
            return await answer(file, slot)

    def _is_full_for_all(self, token: Token) -> bool:
        """Return whether all slots are in use, but the token and its owner are below their limits."""
        return self.taken >= self._max and self._may_have_more(token)

    def _end_slowest(self) -> None:
        """End the slowest download below the minimum pace, if there is one."""
        now = monotonic()
        for slot in self._held:
            slot.measure(now)
        measured = [(slot.pace, slot) for slot in self._held if slot.pace is not None]
        pace, slowest = min(measured, key=itemgetter(0), default=(self._min_pace, None))
        if slowest is None or slowest.transfer is None or pace >= self._min_pace:
            return
        self._held.discard(slowest)
        transfer = slowest.transfer
        log.warning("slow-download-ended", job=transfer.key, tokenId=slowest.token.id, pace=round(pace))
        transfer.end_early()

    @asynccontextmanager
    async def acquire(self, token: Token) -> AsyncIterator[Slot]:
        """Hold a slot during the block. Raises TooManyDownloads if there is none."""
        if self._by_token.get(token.id, 0) >= self._max_per_token:
            self._refuse("token")
        if self._by_owner.get(token.owner, 0) >= self._max_per_owner:
            self._refuse("owner")
        if self.taken >= self._max:
            self._refuse("all")
        with self.hold(token) as slot, await self._lease(token):
            yield slot

    async def _lease(self, token: Token) -> AbstractContextManager[None]:
        if self._leases is None:
            return nullcontext()
        try:
            return await self._leases.acquire(
                {
                    ("token", token.id): self._max_per_token,
                    ("owner", token.owner): self._max_per_owner,
                    ("all",): self._max,
                }
            )
        except LimitReached as exc:
            self._refuse(exc.kind)

    def _refuse(self, limit: str) -> NoReturn:
        self._on_refused(limit)
        details = {
            "token": f"This token already has {self._max_per_token} downloads in progress.",
            "owner": f"This owner already has {self._max_per_owner} downloads in progress.",
            "all": "The service already has its maximum number of downloads in progress.",
        }
        raise TooManyDownloads(details[limit], retry_after=SLOT_RETRY_S)

    @contextmanager
    def hold(self, token: Token) -> Iterator[Slot]:
        """Hold a slot of this process during the block, even above the limit.

        For small downloads that were started without waiting while a slot was free: other instances do not
        count them.
        """
        self.taken += 1
        self._by_token[token.id] += 1
        self._by_owner[token.owner] += 1
        self._held.add(slot := Slot(token))
        self._all_released.clear()
        try:
            yield slot
        finally:
            self._held.discard(slot)
            self.taken -= 1
            for counts, key in ((self._by_token, token.id), (self._by_owner, token.owner)):
                counts[key] -= 1
                if not counts[key]:
                    del counts[key]
            if not self.taken:
                self._all_released.set()
            self._slot_released.set()
            self._slot_released = asyncio.Event()
