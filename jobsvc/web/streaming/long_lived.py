"""Requests that stay: those that wait, and streams. Each is woken by what concerns it, and holds no thread.

One pulse looks after all of them: a stay is over soon after its client has gone, and at once when the service
ends. It is over within two seconds when its token does not permit it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from time import monotonic
from typing import Final

from aiohttp import web
from prometheus_client import Gauge

from jobsvc.domain.access import JOBS_READ, Token
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.permits import Permit, Permits
from jobsvc.web.connection.protocol import Connection
from jobsvc.web.ratelimit.stream_slots import StreamSlots

CHECK_INTERVAL_S: Final = 1.0
"""Seconds between two looks at all stays."""


class EndReason(Enum):
    """Why a stay is over."""

    DISCONNECTED = "gone"
    """The client went, or closed its side, which looks the same: what there is to say, it is told now."""
    REVOKED = "revoked"
    """The token does not permit the request any more."""
    SHUTDOWN = "ending"
    """The service ends."""


class LongLivedRequest:
    """One request's stay."""

    __slots__ = ("_future", "_woken", "deadline", "end_reason", "permit", "request", "token")

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.token: Token = request[TOKEN]
        self.permit: Permit
        self.end_reason: EndReason | None = None
        self.deadline: float | None = None
        """When it is to be woken at the latest, to within a pulse (monotonic seconds)."""
        self._future: asyncio.Future[None] | None = None
        self._woken = False

    def permitted(self) -> bool:
        """Whether the token, as it is now, permits the request; if not, the stay is over."""
        if not self.permit.valid():
            self.end_reason = EndReason.REVOKED
        return self.end_reason is not EndReason.REVOKED

    def revoke(self) -> None:
        """End the stay, which the token does not permit any more; a client that does not read is dropped."""
        self.end_reason = EndReason.REVOKED
        protocol = self.request.protocol
        if protocol.writing_paused and protocol.transport is not None:
            protocol.transport.abort()
        self.notify()

    def notify(self) -> None:
        """Have the next rest, or the present one, be over."""
        self._woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Wait until woken; at once where that was since the last rest."""
        if not self._woken and self.end_reason is None:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._woken = False


class LongLivedRequests:
    """All stays. Loop-owned."""

    def __init__(self, permits: Permits, slots: StreamSlots) -> None:
        self._permits = permits
        self._slots = slots
        self._open: set[LongLivedRequest] = set()
        self._ending = False

    @contextmanager
    def hold(self, request: web.Request, counted: Gauge) -> Iterator[LongLivedRequest]:
        """Let a request stay for the length of a block; it is counted in a gauge. TooManyStreams."""
        stay = LongLivedRequest(request)
        if self._ending:
            stay.end_reason = EndReason.SHUTDOWN
        with self._slots.hold(stay.token):
            self._open.add(stay)
            try:
                with (
                    self._permits.hold(stay.token, JOBS_READ, stay.revoke) as stay.permit,
                    counted.track_inprogress(),
                ):
                    yield stay
            finally:
                self._open.discard(stay)

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Look after them until the end: a cleanup_ctx."""
        watch = asyncio.create_task(self._watch(), name="jobsvc-stays")
        yield
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch

    async def end(self, _app: web.Application) -> None:
        """End all of them, and those to come: an on_shutdown."""
        self._ending = True
        for stay in self._open:
            stay.end_reason = stay.end_reason or EndReason.SHUTDOWN
            stay.notify()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            now = monotonic()
            for stay in self._open:
                if stay.end_reason is None:
                    self._check(stay, now)

    def _check(self, stay: LongLivedRequest, now: float) -> None:
        protocol = stay.request.protocol
        if protocol.transport is None or (isinstance(protocol, Connection) and protocol.half_closed):
            stay.end_reason = EndReason.DISCONNECTED
        elif stay.deadline is None or now < stay.deadline:
            return
        stay.notify()
