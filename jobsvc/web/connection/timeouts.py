"""Close connections that are idle, send a request head too slowly, or stop reading their response.

One task checks all connections once a second. Requests set no timers for this, so it costs them nothing. The
limits are therefore exact to about a second.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from struct import Struct
from typing import Final, NamedTuple, Protocol

import structlog
from aiohttp import web

from jobsvc.web.background_task import background_task

SWEEP_INTERVAL_S: Final = 1.0
KEEPALIVE_TIMEOUT_S: Final = 75.0
"""Seconds that a connection may stay open between two requests."""
SWEEP_SLICE_S: Final = 0.002
"""Time that a sweep runs before it lets other callbacks of the event loop run."""

_BYTES_ACKED: Final = Struct("=120xQ")
"""struct tcp_info (linux/tcp.h) up to tcpi_bytes_acked: bytes that the peer's system has acknowledged."""

_UNIX_START: Final = 1 << 62
_INT: Final = Struct("i")
_ALL: Final = -1
"""Used instead of a number of acknowledged bytes: all of them."""

log = structlog.get_logger("jobsvc.web")


class TimedConnection(Protocol):
    """Interface of a connection that the timeouts need."""

    head_started_at: float
    """When the first bytes of an unfinished request head arrived (loop time); 0 if there is none."""
    answered_at: float | None
    """When the last response was sent (loop time), while further input is read and discarded; else None."""

    @property
    def requests_received(self) -> bool:
        """Whether a request was received."""

    def idle_since(self) -> float | None:
        """Return when the wait for a request began (loop time); None while one is handled."""

    def time_out_head(self) -> None:
        """Send a 408 for an unfinished request head, and close."""

    def force_close(self) -> None:
        """Close the connection."""


OpenConnections = Callable[[], Sequence[tuple[TimedConnection, asyncio.Transport]]]


class _SendState(NamedTuple):
    """Bytes that a peer has acknowledged, and since when (loop time) it has acknowledged no more."""

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
        async with background_task(self._run(), "jobsvc-connection-timeouts"):
            yield

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
        """Abort a connection whose peer has acknowledged no byte of a response for the send timeout."""
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
        """Apply the send timeout to a response whose rest is in the kernel's buffer.

        Once all bytes are acknowledged, the buffer is not queried again in the same idle period.
        """
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
            # A head received while another request was handled could not be completed before that one.
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
    """Return the number of bytes that the peer's system has acknowledged on this connection; 0 if closed.

    A Unix socket does not count them: a number that grows by as many as its peer reads.
    """
    connection: socket.socket | None = transport.get_extra_info("socket")
    try:
        if connection is not None and connection.family == socket.AF_UNIX:
            return _UNIX_START - _unacked(transport) - transport.get_write_buffer_size()
        if connection is not None:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
            return int(_BYTES_ACKED.unpack(info)[0])
    except OSError:  # closed meanwhile
        pass
    return 0


def _unacked(transport: asyncio.Transport) -> int:
    """Return the number of bytes in the kernel's buffer that the peer's system has not acknowledged.

    0 if the connection is closed. See tcp(7), SIOCOUTQ.
    """
    connection: socket.socket | None = transport.get_extra_info("socket")
    try:
        if connection is not None:
            (count,) = _INT.unpack(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))
            return int(count)
    except OSError:  # closed meanwhile
        pass
    return 0
