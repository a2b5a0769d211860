"""Close connections that are idle, send a request head too slowly, or stop reading their answer.

One task looks at all connections once a second. Requests set no timers for this, so they pay nothing for it.
The limits are therefore exact to about a second.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from struct import Struct
from typing import Final, NamedTuple, Protocol

import structlog
from aiohttp import web

SWEEP_INTERVAL_S: Final = 1.0
KEEPALIVE_TIMEOUT_S: Final = 75.0
"""Seconds that a connection may stay open between two requests."""
SWEEP_SLICE_S: Final = 0.002
"""Time of a sweep before other callbacks of the event loop run."""

_BYTES_ACKED: Final = Struct("=120xQ")
"""struct tcp_info (linux/tcp.h) as far as tcpi_bytes_acked: bytes that the peer's system has accepted."""

_INT: Final = Struct("i")
_ALL: Final = -1
"""In place of a number of accepted bytes: all of them."""

log = structlog.get_logger("jobsvc.web")


class TimedConnection(Protocol):
    """What the timeouts need of a connection."""

    head_started_at: float
    """When the first bytes of an unfinished request head arrived (loop time); 0 if there is none."""
    answered_at: float | None
    """When the last answer was sent (loop time), while what the client still sends is read and dropped."""

    @property
    def requests_received(self) -> bool:
        """Whether a request was received on it."""

    def idle_since(self) -> float | None:
        """Return when the wait for a request began (loop time); None while one is handled."""

    def time_out_head(self) -> None:
        """Answer 408 to an unfinished request head, and close."""

    def force_close(self) -> None:
        """Close."""


OpenConnections = Callable[[], Sequence[tuple[TimedConnection, asyncio.Transport]]]


class _SendState(NamedTuple):
    """How far a peer had accepted an answer, and since when it has accepted nothing more."""

    bytes_acked: int
    since: float


class ConnectionTimeouts:
    """The timeouts of all connections of one server. Belongs to the event loop."""

    def __init__(
        self,
        *,
        header_timeout: float,
        send_timeout: float,
        on_closed: Callable[[str], object],
    ) -> None:
        """Take the times in seconds; `on_closed` is called with the reason for each closed connection."""
        self._header_timeout = header_timeout
        self._send_timeout = send_timeout
        self._on_closed = on_closed
        self._sending: dict[TimedConnection, _SendState] = {}
        self.open_connections: OpenConnections = tuple
        """Lists the connections; set by the server."""

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Sweep until the application ends: a cleanup_ctx."""
        task = asyncio.create_task(self._run(), name="jobsvc-connection-timeouts")
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            try:
                await self.sweep()
            except Exception:
                log.exception("connection-sweep-failed")

    async def sweep(self) -> None:
        """Examine every connection once, in slices."""
        connections, sending = self.open_connections(), self._sending
        self._sending = {}
        clock = asyncio.get_running_loop().time
        until = clock() + SWEEP_SLICE_S
        for connection, transport in connections:
            if (now := clock()) > until:
                await asyncio.sleep(0)
                until = (now := clock()) + SWEEP_SLICE_S
            if transport.get_write_buffer_size():
                self._check_sending(connection, transport, sending.get(connection), now)
            elif (since := connection.idle_since()) is not None:
                self._check_idle(connection, since, now)
                if now - since >= self._send_timeout / 2:
                    self._check_sent(connection, transport, sending.get(connection), now)

    def _check_sending(
        self, connection: TimedConnection, transport: asyncio.Transport, last: _SendState | None, now: float
    ) -> None:
        """Abort a connection whose peer has accepted no byte of an answer for the send timeout."""
        acked = _bytes_acked(transport)
        if last is None or last.bytes_acked != acked:
            self._sending[connection] = _SendState(acked, now)
        elif now - last.since < self._send_timeout:
            self._sending[connection] = last
        else:
            transport.abort()
            self._on_closed("send-timeout")

    def _check_sent(
        self, connection: TimedConnection, transport: asyncio.Transport, last: _SendState | None, now: float
    ) -> None:
        """Do so where the rest of the answer is in the kernel's buffer; ask for that once an idle period."""
        idle_since = connection.idle_since()
        if last is not None and last.bytes_acked == _ALL and last.since == idle_since:
            self._sending[connection] = last
        elif idle_since is not None and not _unacked(transport):
            self._sending[connection] = _SendState(_ALL, idle_since)
        else:
            self._check_sending(connection, transport, last, now)

    def _check_idle(self, connection: TimedConnection, since: float, now: float) -> None:
        head_started_at = connection.head_started_at
        if head_started_at:
            # A head behind a request that was still handled could not be finished before that one was.
            if now - max(since, head_started_at) >= self._header_timeout:
                connection.time_out_head()
                self._on_closed("header-timeout")
        elif not connection.requests_received and now - since >= self._header_timeout:
            connection.force_close()
            self._on_closed("header-timeout")
        elif now - since >= KEEPALIVE_TIMEOUT_S:
            connection.force_close()
            self._on_closed("idle-timeout")


CONNECTION_TIMEOUTS: Final = web.AppKey("jobsvc.connection-timeouts", ConnectionTimeouts)
"""On the application: the timeouts of its server's connections."""


def _bytes_acked(transport: asyncio.Transport) -> int:
    """Return how many bytes the peer's system has accepted on this connection, at all."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    try:
        if connection is not None:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
            return int(_BYTES_ACKED.unpack(info)[0])
    except OSError:  # closed meanwhile
        pass
    return 0


def _unacked(transport: asyncio.Transport) -> int:
    """Count the bytes in the kernel's buffer that the peer's system has not accepted (tcp(7), SIOCOUTQ)."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    try:
        if connection is not None:
            (count,) = _INT.unpack(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))
            return int(count)
    except OSError:  # closed meanwhile
        pass
    return 0
