"""Bound the number of open connections, and keep some for probes when all others are in use.

When the limit is reached, the connection that has been idle longest is closed for a new one. Three kinds are
closed first: those whose first request head is unfinished, those that have sent nothing within
NEWCOMER_GRACE_S, and those whose request got its response before its body arrived. Without that grace period,
a new connection would be closed for the next one before any idle connection that was used once. If none is
idle, the new connection serves /healthz, /readyz and /metrics, responds with 503 to everything else, and is
closed after one response. There are RESERVED such connections; the oldest is closed for the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import nsmallest
from operator import itemgetter
from time import thread_time
from typing import Final, Protocol

import structlog
from aiohttp import web

from jobsvc.web.connection.timeouts import OpenConnections, TimedConnection

RESERVED: Final = 16
"""Connections above the limit."""
NEWCOMER_GRACE_S: Final = 1.0
"""Time that a new connection has to send its first byte before it is one of those closed first."""
SEARCH_SHARE: Final = 0.05
"""Share of one CPU for searches for idle connections: one among 16,384 takes about 10 ms."""
CANDIDATES: Final = 1024
"""Idle connections that one search remembers."""
LOG_INTERVAL_S: Final = 60.0


log = structlog.get_logger("jobsvc.web")


class LimitedConnection(TimedConnection, Protocol):
    """Interface of a connection that the limit needs."""

    def restrict(self) -> None:
        """Serve only one request, and only if it is for a probe."""


class ConnectionLimits:
    """Decides which connections are served. Belongs to the event loop."""

    def __init__(
        self, max_connections: int, *, on_closed: Callable[[str], object], on_refused: Callable[[], object]
    ) -> None:
        """`on_closed` is called with "evicted"; `on_refused` for each connection restricted to probes."""
        self.max_connections = max_connections
        self._on_closed = on_closed
        self._on_refused = on_refused
        self.open_connections: OpenConnections = tuple
        """Lists the connections; set by the server."""
        self._restricted: dict[LimitedConnection, asyncio.Transport] = {}
        self._candidates: list[tuple[float, TimedConnection]] = []
        """Idle connections and since when they are idle; the next to be closed is the last."""
        self._go_first = False
        """Whether the candidates are connections that are closed before all others."""
        self._search_at = 0.0
        self._log_at = 0.0

    def admit(self, connection: LimitedConnection, transport: asyncio.Transport, count: int) -> None:
        """Admit a new connection or restrict it to probes; `count` includes it."""
        if count - len(self._restricted) <= self.max_connections or self.close_oldest_idle():
            return
        self._on_refused()
        self._log_reached()
        connection.restrict()
        self._restricted[connection] = transport
        if len(self._restricted) > RESERVED:
            oldest = next(iter(self._restricted))
            self._restricted.pop(oldest).abort()

    def forget(self, connection: LimitedConnection) -> None:
        """Forget a connection that was lost."""
        self._restricted.pop(connection, None)

    def close_oldest_idle(self) -> bool:
        """Close the connection that has waited longest for a request; return False if none is idle."""
        if self._candidates and self._go_first and self._close_candidate():
            return True
        # Some of the others might now be ones that are closed first.
        self._search()
        return self._close_candidate()

    def _close_candidate(self) -> bool:
        """Close the first candidate that is still idle; return False if there is none."""
        while self._candidates:
            since, connection = self._candidates.pop()
            if _idle_since(connection) == since:
                connection.force_close()
                self._on_closed("evicted")
                return True
        return False

    def _search(self) -> None:
        """Search for idle connections again, if a search is due."""
        now = asyncio.get_running_loop().time()
        if now < self._search_at:
            return
        before = thread_time()
        self._candidates = self._find_idle(now)
        self._search_at = now + (thread_time() - before) / SEARCH_SHARE

    def _find_idle(self, now: float) -> list[tuple[float, TimedConnection]]:
        """List idle connections, the next to be closed last; if some go before all others, only those."""
        idle = [
            (since, connection)
            for connection, _ in self.open_connections()
            if connection not in self._restricted and (since := _idle_since(connection)) is not None
        ]
        first = [each for each in idle if _goes_first(each[1], now - each[0])]
        self._go_first = bool(first)
        return nsmallest(CANDIDATES, first or idle, key=itemgetter(0))[::-1]

    def _log_reached(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._log_at:
            self._log_at = now + LOG_INTERVAL_S
            log.warning("connection-limit-reached", max_connections=self.max_connections)


CONNECTION_LIMITS: Final = web.AppKey("jobsvc.connection-limits", ConnectionLimits)
"""On the application: the limit of its server's connections."""


def _idle_since(connection: TimedConnection) -> float | None:
    """Return when the wait for a request or the rest of a body began (loop time); None if there is none."""
    answered_at = connection.answered_at
    return connection.idle_since() if answered_at is None else answered_at


def _goes_first(connection: TimedConnection, idle_for: float) -> bool:
    if connection.answered_at is not None:
        return True
    if connection.requests_received:
        return False
    return bool(connection.head_started_at) or idle_for >= NEWCOMER_GRACE_S
