"""Read the body of a response to its exact end, then keep or close its connection."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from threading import Lock
from time import monotonic
from typing import Final

from jobsvc.client.errors import ConnectionFailed
from jobsvc.client.transport.connection import Connection
from jobsvc.client.transport.failures import (
    TRANSPORT_ERRORS,
    Disconnected,
    MalformedResponse,
    Peer,
    body_incomplete,
)
from jobsvc.client.transport.response_head import MAX_TIMEOUTS, BodyFraming, ResponseHead

MAX_BODY_S: Final = 300.0
"""Seconds that a response may take that is read as a whole."""

_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_MAX_LINE: Final = 8 << 10
_MAX_TRAILERS: Final = 100
_READ_SIZE: Final = 64 << 10


class ResponseStream:
    """A response whose body is read in parts by one thread; a BodyStream."""

    def __init__(
        self,
        connection: Connection,
        head: ResponseHead,
        framing: BodyFraming,
        *,
        peer: Peer,
        timeout: float,
        keep: Callable[[Connection], None],
    ) -> None:
        """Take over a connection; `keep` receives it after the body if it can be used again.

        `peer` is for messages; `timeout` is the default of each read, in seconds.
        """
        self.status = head.status
        self.headers: Mapping[str, str] = head.headers
        self._connection = connection
        self._framing = framing
        self._keep = keep if head.keep_alive else Connection.close
        self._peer = peer
        self._timeout = timeout
        self._remaining = 0 if framing.chunked else framing.length
        """Bytes of the body, or of the current chunk; None if the body ends with the connection."""
        self._received = 0
        self._after_chunk = False
        self._postponed: Exception | None = None
        """An error that occurred after bytes had been received; raised by the next call."""
        self._lock = Lock()
        self._reading = False
        self._ended = False
        """Whether the body was read to its end; then the connection can be in use by another response."""
        self._closed = False
        if framing.length == 0:
            self._end()

    def read(self, timeout: float | None = None) -> bytes:
        """Return what has arrived, at least one byte and at most 64 kB; empty at the end.

        Raises ConnectionFailed, also after `timeout` seconds without a byte (None: those of the request).
        """
        buffer = memoryview(bytearray(_READ_SIZE))
        return bytes(buffer[: self._guard(self._receive, buffer, timeout)])

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, or what is left of the body; return the number of bytes, 0 at the end.

        Raises ConnectionFailed. Bytes that arrived before an error are returned; the next call raises it.
        """
        return self._guard(self._fill, buffer, None)

    def close(self) -> None:
        """Release the connection; can be called from another thread to end a read, and repeatedly."""
        with self._lock:
            if self._closed or self._ended:
                self._closed = True
                return
            self._closed = True
            if self._reading:
                self._connection.interrupt()  # the reading thread closes it
                return
        self._connection.close()

    def _guard(self, function: Callable[[memoryview], int], buffer: memoryview, timeout: float | None) -> int:
        """Call a function that reads; close the connection after an error, and raise ConnectionFailed."""
        with self._lock:
            if self._closed:
                raise ConnectionFailed(f"The response of {self._peer} was closed.")
            self._reading = True
        timeout = self._timeout if timeout is None else timeout
        try:
            if not self._ended:
                self._connection.set_timeout(timeout)
            return function(buffer)
        except TRANSPORT_ERRORS as exc:
            if self._closed:
                raise ConnectionFailed(f"The response of {self._peer} was closed.") from exc
            self._closed = True
            raise body_incomplete(exc, self._peer, timeout, self._received) from exc
        finally:
            with self._lock:
                self._reading = False
                must_close = self._closed and not self._ended
            if must_close:
                self._connection.close()

    def _fill(self, buffer: memoryview) -> int:
        filled = 0
        try:
            while filled < len(buffer) and (count := self._receive(buffer[filled:])):
                filled += count
        except TRANSPORT_ERRORS as exc:
            if not filled:
                raise
            self._postponed = exc
        return filled

    def _receive(self, buffer: memoryview) -> int:
        """Receive once; return the number of bytes, 0 at the end."""
        if self._postponed is not None:
            raise self._postponed
        if self._remaining == 0 and not self._ended:
            self._start_chunk()
        if self._ended:
            return 0
        if self._remaining is None:
            return self._receive_until_close(buffer)
        count = self._connection.read_into(buffer[: self._remaining])
        self._received += count
        self._remaining -= count
        if self._remaining == 0 and not self._framing.chunked:
            self._end()
        return count

    def _receive_until_close(self, buffer: memoryview) -> int:
        try:
            count = self._connection.read_into(buffer)
        except Disconnected:
            if self._closed:  # by another thread: this is not the end
                raise
            self._end()
            return 0
        self._received += count
        return count

    def _start_chunk(self) -> None:
        """Read the size of the next chunk; after the last one, its trailers (RFC 9112, section 7.1)."""
        ends = monotonic() + MAX_TIMEOUTS * self._timeout
        if self._after_chunk and self._connection.read_line(_MAX_LINE, ends):
            raise MalformedResponse("has an invalid chunk")
        self._after_chunk = True
        match = _CHUNK_SIZE.fullmatch(self._connection.read_line(_MAX_LINE, ends))
        if not match:
            raise MalformedResponse("has an invalid chunk")
        self._remaining = int(match[1], 16)
        if self._remaining == 0:
            for _ in range(_MAX_TRAILERS):
                if not self._connection.read_line(_MAX_LINE, ends):
                    self._end()
                    return
            raise MalformedResponse("has too many trailers")

    def _end(self) -> None:
        with self._lock:
            self._ended = True
        if self._framing == (None, False):
            self._connection.close()
        else:
            self._keep(self._connection)


def read_whole(stream: ResponseStream, max_size: int) -> bytes:
    """Return the whole body. Raises ConnectionFailed, also if it is too large or takes too long."""
    body, ends = bytearray(), monotonic() + MAX_BODY_S
    while data := stream.read():
        body += data
        if len(body) > max_size:
            raise ConnectionFailed(f"A response is larger than {max_size >> 20} MiB.")
        if monotonic() > ends:
            raise ConnectionFailed(f"A response was not complete after {MAX_BODY_S:g} s.")
    return bytes(body)
