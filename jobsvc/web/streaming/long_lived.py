"""Long-lived requests: long polls and event streams. Each waits on a future and uses no thread.

One task checks all of them every second and ends those whose client has disconnected. A request whose token
becomes invalid, or whose session ends, ends within two seconds. Shutdown ends all at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from time import monotonic
from typing import Final

from aiohttp import web
from prometheus_client import Gauge

from jobsvc.domain.access import JOBS_READ, Token
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.auth.permits import Permit, Permits
from jobsvc.web.auth.sessions import SESSION_EXPIRES
from jobsvc.web.background_task import background_task
from jobsvc.web.connection.connection import connection_of
from jobsvc.web.connection.response_stream import is_write_paused
from jobsvc.web.ratelimit.stream_slots import StreamSlots

CHECK_INTERVAL_S: Final = 1.0
"""Seconds between two checks of all long-lived requests."""


class EndReason(Enum):
    """Why a long-lived request has ended."""

    DISCONNECTED = "disconnected"
    """The client disconnected, or half-closed, which looks the same: it gets its response now."""
    REVOKED = "revoked"
    """The token no longer permits the request, or the session has ended."""
    SHUTDOWN = "shutdown"
    """The service shuts down."""


class LongLivedRequest:
    """One long poll or event stream."""

    __slots__ = ("_future", "_notified", "deadline", "end_reason", "permit", "request", "token")

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.token: Token = request[TOKEN]
        self.permit: Permit
        self.end_reason: EndReason | None = None
        self.deadline: float | None = None
        """Latest time of the next notification, monotonic seconds; up to CHECK_INTERVAL_S late."""
        self._future: asyncio.Future[None] | None = None
        self._notified = False

    def check_permit(self) -> bool:
        """Whether the token, as it is now, permits the request; if not, the request ends."""
        if not self.permit.valid():
            self.end_reason = EndReason.REVOKED
        return self.end_reason is not EndReason.REVOKED

    def revoke(self) -> None:
        """End the request because its token no longer permits it.

        The connection is aborted if the client does not read.
        """
        self.end_reason = EndReason.REVOKED
        transport = self.request.transport
        if transport is not None and is_write_paused(self.request):
            transport.abort()
        self.notify()

    def notify(self) -> None:
        """End the current `wait`, or the next one if none is running."""
        self._notified = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Wait until notified; return at once if that happened since the last wait."""
        if not self._notified and self.end_reason is None:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._notified = False


class LongLivedRequests:
    """All long-lived requests. Event loop only."""

    def __init__(self, permits: Permits, slots: StreamSlots) -> None:
        self._permits = permits
        self.slots: Final = slots
        self._open: set[LongLivedRequest] = set()
        self._ending = False

    @asynccontextmanager
    async def hold(self, request: web.Request, gauge: Gauge) -> AsyncIterator[LongLivedRequest]:
        """Register a request for the duration of a block, and count it in `gauge`.

        Raises TooManyStreams if no slot is free.
        """
        long_lived = LongLivedRequest(request)
        async with self.slots.hold(long_lived.token):
            if self._ending:
                long_lived.end_reason = EndReason.SHUTDOWN
            self._open.add(long_lived)
            try:
                expires = request.get(SESSION_EXPIRES)
                permit = self._permits.hold(long_lived.token, JOBS_READ, long_lived.revoke, expires=expires)
                with (
                    permit as long_lived.permit,
                    gauge.track_inprogress(),
                ):
                    yield long_lived
            finally:
                self._open.discard(long_lived)

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Run the periodic check until the service ends; for aiohttp's cleanup_ctx."""
        async with background_task(self._run(), "jobsvc-long-lived"):
            yield

    async def end(self, _app: web.Application) -> None:
        """End all requests, including later ones; for aiohttp's on_shutdown."""
        self._ending = True
        for long_lived in self._open:
            long_lived.end_reason = long_lived.end_reason or EndReason.SHUTDOWN
            long_lived.notify()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            now = monotonic()
            for long_lived in self._open:
                if long_lived.end_reason is None:
                    self._check(long_lived, now)

    def _check(self, long_lived: LongLivedRequest, now: float) -> None:
        if long_lived.request.transport is None or connection_of(long_lived.request).half_closed:
            long_lived.end_reason = EndReason.DISCONNECTED
        elif long_lived.deadline is None or now < long_lived.deadline:
            return
        long_lived.notify()
