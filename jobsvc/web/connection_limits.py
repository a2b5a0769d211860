"""Bound the number of open connections, and keep some for the probes when all others are taken.

When the limit is reached, the connection that has been idle longest makes room for a new one; connections on
which no request was received go first, those with an unfinished request head among them, and those whose
request was answered before its body came. If none is idle, the new one serves /healthz, /readyz and /metrics,
answers 503 to everything else, and is closed after one answer. There are RESERVED such connections, and the
oldest of them makes room for the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from heapq import nsmallest
from time import thread_time
from typing import Final, Protocol, cast

import structlog
from aiohttp import hdrs, web

from jobsvc.domain.errors import TooManyConnections
from jobsvc.observe import request_id
from jobsvc.web import problems
from jobsvc.web.connection_timeouts import OpenConnections, TimedConnection
from jobsvc.web.envelope import REQUEST_ID, seal

RESERVED: Final = 16
"""Connections above the limit."""
PROBE_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
SEARCH_SHARE: Final = 0.05
"""Of a processor, for searches for idle connections: one among 16,384 takes about 10 ms."""
CANDIDATES: Final = 1024
"""Idle connections that one search remembers."""
LOG_INTERVAL_S: Final = 60.0
RETRY_AFTER_S: Final = 1

RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = structlog.get_logger("jobsvc.web")


def probes_only(handler: RequestHandler) -> RequestHandler:
    """Wrap a handler so that it serves the probes alone and answers 503 to everything else, and closes."""

    async def restricted(request: web.BaseRequest) -> web.StreamResponse:
        if request.method in {hdrs.METH_GET, hdrs.METH_HEAD} and request.path in PROBE_PATHS:
            response = await handler(request)
        else:
            request_id.begin(request.headers.get(REQUEST_ID))
            response = problems.of_refusal(
                TooManyConnections("All connections are in use.", retry_after=RETRY_AFTER_S)
            )
            seal(cast(web.Request, request), response)
        response.force_close()
        return response

    return restricted


class LimitedConnection(TimedConnection, Protocol):
    """What the limit needs of a connection."""

    def restrict(self) -> None:
        """Serve one request, and that only if it is a probe's."""


class ConnectionLimits:
    """Decides which connections are served. Belongs to the event loop."""

    def __init__(
        self, max_connections: int, *, on_closed: Callable[[str], object], on_refused: Callable[[], object]
    ) -> None:
        """`on_closed` is called with "evicted"; `on_refused` for each connection that may only probe."""
        self.max_connections = max_connections
        self._on_closed = on_closed
        self._on_refused = on_refused
        self.open_connections: OpenConnections = tuple
        """Lists the connections; set by the server."""
        self._restricted: dict[LimitedConnection, asyncio.Transport] = {}
        self._candidates: list[tuple[tuple[bool, float], TimedConnection]] = []
        """Idle connections, those to be closed first at the end."""
        self._search_at = 0.0
        self._log_at = 0.0

    def admit(self, connection: LimitedConnection, transport: asyncio.Transport, count: int) -> None:
        """Take a new connection on; `count` is how many are open with it."""
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
        """Note that a connection was lost."""
        self._restricted.pop(connection, None)

    def close_oldest_idle(self) -> bool:
        """Close the connection that has waited longest for a request; False if none is idle."""
        if self._close_candidate():
            return True
        loop = asyncio.get_running_loop()
        if loop.time() < self._search_at:
            return False
        before = thread_time()
        self._candidates = self._find_idle()
        self._search_at = loop.time() + (thread_time() - before) / SEARCH_SHARE
        return self._close_candidate()

    def _close_candidate(self) -> bool:
        """Close the first of those found before that is idle still."""
        while self._candidates:
            order, connection = self._candidates.pop()
            if _order(connection) == order:
                connection.force_close()
                self._on_closed("evicted")
                return True
        return False

    def _find_idle(self) -> list[tuple[tuple[bool, float], TimedConnection]]:
        """List idle connections in reverse order; those with requests only where there are no others."""
        idle = [
            (order, connection)
            for connection, _ in self.open_connections()
            if connection not in self._restricted and (order := _order(connection)) is not None
        ]
        chosen = [each for each in idle if not each[0][0]] or idle
        return nsmallest(CANDIDATES, chosen, key=lambda each: each[0])[::-1]

    def _log_reached(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._log_at:
            self._log_at = now + LOG_INTERVAL_S
            _log.warning("connection-limit-reached", max_connections=self.max_connections)


CONNECTION_LIMITS: Final = web.AppKey("jobsvc.connection-limits", ConnectionLimits)
"""On the application: the limit of its server's connections."""


def _order(connection: TimedConnection) -> tuple[bool, float] | None:
    """Return the sort key of an idle connection; None for one that is not idle."""
    if connection.answered_at is not None:
        return False, connection.answered_at
    since = connection.idle_since()
    return None if since is None else (connection.requests_received, since)
