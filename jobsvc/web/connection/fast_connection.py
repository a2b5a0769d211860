"""Respond to plain GETs that need no wait where their bytes arrive: the fast path.

A task for each request, with its wake-ups, costs as much as a status response. The fast path uses neither a
task nor aiohttp's request object. It does not parse a head that equals the previous one except for the path
and the range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.http_writer import StreamWriter
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from jobsvc.web.connection.connection import Connection, ConnectionServer, RequestHandler
from jobsvc.web.connection.head_cache import CachedHead, CachedMatch


class FastPathServer(ConnectionServer):
    """Server whose connections use the fast path."""

    def __init__(
        self,
        handler: RequestHandler,
        *,
        try_fast: Callable[[FastConnection, RawRequestMessage, str], bool],
        fast_path: bool = True,
        **kw: Any,  # noqa: ANN401 - the parent's signature
    ) -> None:
        """`try_fast` responds to a plain GET of a target, or returns False if that would need a wait.

        `fast_path`: whether connections use the fast path; responses do not differ without it.
        """
        super().__init__(handler, **kw)
        self.try_fast = try_fast
        self.fast_path = fast_path

    def __call__(self) -> Connection:
        """Create a connection."""
        return FastConnection(self, loop=self._loop, **self._kwargs) if self.fast_path else super().__call__()


class FastConnection(Connection):
    """Connection that responds to requests on the fast path if possible."""

    # Per-connection state
    _jobsvc_server: FastPathServer
    _jobsvc_cached_head: CachedHead | None = None
    """The last request if the fast path responded to it and nothing was parsed since; else None."""

    # Per-request state
    _jobsvc_on_fast_path = False
    """Whether the fast path is handling a request now."""

    # Flow control
    _jobsvc_unsent = b""
    """A response that is written at the end of the current callback."""

    # Input

    def data_received(self, data: bytes) -> None:
        """Buffer `data`; the next request of a polling client is cheap, and parsed before other bytes."""
        if data and self._jobsvc_cached_head is not None and not self._jobsvc_received:
            self._jobsvc_received = data
            self._jobsvc_server.callbacks.call_soon(self._parse_received)
        else:
            super().data_received(data)

    def _parse(self, data: bytes) -> None:
        match = self._match_cached_head(data)
        if match is None:
            super()._parse(data)
            return
        message, target = match
        if self._try_fast(message, target):
            self._request_count += 1
        else:
            self._process_piece(data, to_task=True)

    def _process_piece(self, data: bytes, *, to_task: bool = False) -> None:
        self._jobsvc_cached_head = None
        super()._process_piece(data, to_task=to_task)

    def eof_received(self) -> bool:  # type: ignore[override] # as the parent's
        """Keep the connection open for the responses that are due."""
        keep_open = super().eof_received()
        self._flush()
        return keep_open

    # Fast path

    def _match_cached_head(self, data: bytes) -> CachedMatch | None:
        """Match a request that differs from the last one only in its target or its range.

        Returns None for any other request, and if the connection is not idle or is closing.
        """
        last, waiter = self._jobsvc_cached_head, self._waiter
        if (
            last is None
            or waiter is None
            or waiter.done()
            or self._paused
            or self._force_close
            or self._close
        ):
            return None
        return last.match(data)

    def _respond_at_once(self, data: bytes) -> bool:
        """Respond to the parsed request on the fast path if it is the only one; return whether it did."""
        parser, (message, body) = self._parser, self._messages[0]
        if len(self._messages) > 1 or parser is None:
            return False
        if isinstance(message, _ErrInfo) or body is not EMPTY_PAYLOAD or not _is_plain_get(message):
            return False
        if not self._try_fast(message, message.path):
            return False
        self._messages.popleft()
        parser.message_consumed()
        self._jobsvc_cached_head = CachedHead(message, data)
        return True

    def _try_fast(self, message: RawRequestMessage, target: str) -> bool:
        # Without its keep-alive timer, nothing would end the connection.
        if self._keepalive_handle is None or self._jobsvc_half_closed or self._jobsvc_restricted:
            return False
        # A write to a closing transport succeeds, but the client does not get it.
        if self.transport is None or self.transport.is_closing():
            return False
        if self._jobsvc_unsent:
            self._flush()
        self._jobsvc_on_fast_path = True
        try:
            if not self._jobsvc_server.try_fast(self, message, target):
                return False
        finally:
            self._jobsvc_on_fast_path = False
        self._jobsvc_server.requests_count += 1
        self._jobsvc_response_count += 1
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return True

    def request_of(self, message: RawRequestMessage) -> web.BaseRequest:
        """Create a request for a plain GET on the fast path; its writer is only used for `drain`.

        Raises ConnectionResetError if the connection is lost.
        """
        make, task = self._request_factory, self._task_handler
        if make is None or task is None:
            raise ConnectionResetError("the connection is lost")
        return make(message, EMPTY_PAYLOAD, self, StreamWriter(self, self._loop), task)

    # Responses

    def write_soon(self, data: bytes) -> None:
        """Write a small response at once or, on the fast path, together with those of other connections.

        Waking a client for each response separately costs as much as the responses.
        """
        if self._jobsvc_on_fast_path:
            self._jobsvc_unsent = data
            self._jobsvc_server.callbacks.call_at_end(self._flush)
        else:
            super().write_soon(data)

    def _flush(self) -> None:
        data, self._jobsvc_unsent = self._jobsvc_unsent, b""
        if data and self.transport is not None:
            self.transport.write(data)

    # Timeouts and shutdown

    def idle_since(self) -> float | None:
        """Return when the wait for a request began (loop time); None while one is handled."""
        return None if self._jobsvc_unsent else super().idle_since()

    def drain(self, *, is_last_call: bool = False) -> bool:
        """Parse the next request even if it equals the previous one: its response is the last."""
        self._jobsvc_cached_head = None
        return super().drain(is_last_call=is_last_call)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - the parent's signature
        """Send the responses that are not yet written, then end the connection."""
        self._flush()
        await super().shutdown(timeout)


def _is_plain_get(message: RawRequestMessage) -> bool:
    return (
        message.method == hdrs.METH_GET
        and message.version is HttpVersion11
        and not message.should_close
        and not message.upgrade
        and hdrs.EXPECT not in message.headers
        and hdrs.ORIGIN not in message.headers  # its response may need more fields: web/app/cors.py
    )
