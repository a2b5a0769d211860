"""One connection to the service: a socket with the bytes that were received and not yet read.

`http.client` is not used. It takes 20 ms to import, reads a body with an invalid Content-Length until the
connection closes, ends a body that is too short without an error, hides bytes after the body, and takes a
103 for the final response. Receiving into large buffers costs the same as there and as `recv_into` alone.
"""

from __future__ import annotations

import socket
from time import monotonic
from typing import TYPE_CHECKING, Final

from jobsvc.client.transport.failures import Disconnected, MalformedResponse

if TYPE_CHECKING:
    import ssl

_RECEIVE_SIZE: Final = 64 << 10


class Connection:
    """A connection for one request after the other; used by one thread at a time.

    All methods raise OSError; reading raises Disconnected at the end of the stream.
    """

    def __init__(self, sock: socket.socket | ssl.SSLSocket) -> None:
        self._socket = sock
        self._buffer = b""
        self._position = 0
        self.sent_bytes = 0
        """Bytes of the current request that were sent."""
        self.received_bytes = 0
        """Bytes that arrived since the current request."""

    def set_timeout(self, timeout: float) -> None:
        """Raise TimeoutError after this many seconds without a byte."""
        if timeout != self._socket.gettimeout():
            self._socket.settimeout(timeout)

    def send_request(self, data: bytes, timeout: float) -> None:
        """Send a request; set the timeout, in seconds."""
        self.sent_bytes = self.received_bytes = 0
        self.set_timeout(timeout)
        unsent = memoryview(data)
        while unsent:
            count = self._socket.send(unsent)
            self.sent_bytes += count
            unsent = unsent[count:]

    def read_line(self, max_length: int, ends: float) -> bytes:
        """Return the next line without its CRLF or LF. Raises MalformedResponse if it is longer.

        Raises TimeoutError if it is incomplete at `ends` (monotonic), however often a byte arrives.
        """
        while (end := self._buffer.find(b"\n", self._position)) < 0:
            if len(self._buffer) - self._position > max_length:
                break
            if monotonic() > ends:
                raise TimeoutError
            data = self._socket.recv(_RECEIVE_SIZE)
            if not data:
                raise Disconnected
            self.received_bytes += len(data)
            self._buffer = self._buffer[self._position :] + data
            self._position = 0
        start = self._position
        if not 0 <= end - start <= max_length:
            raise MalformedResponse("has a line that is too long")
        self._position = end + 1
        return self._buffer[start:end].removesuffix(b"\r")

    def read_into(self, buffer: memoryview) -> int:
        """Write what has arrived into the buffer; return the number of bytes, at least one."""
        if self._position < len(self._buffer):
            data = self._buffer[self._position : self._position + len(buffer)]
            self._position += len(data)
            buffer[: len(data)] = data
            return len(data)
        count = self._socket.recv_into(buffer)
        if not count:
            raise Disconnected
        self.received_bytes += count
        return count

    @property
    def is_idle(self) -> bool:
        """Whether the next request can be sent: the peer has neither closed nor sent anything unexpected."""
        if self._position < len(self._buffer):
            return False
        try:
            self._socket.settimeout(0)
            # Not SSLSocket.recv: it does not peek. Anything that arrives on an idle TLS connection ends it.
            socket.socket.recv(self._socket, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return not (hasattr(self._socket, "pending") and self._socket.pending())
        except OSError:
            return False
        return False

    def interrupt(self) -> None:
        """End a call that another thread waits in; the connection still has to be closed."""
        try:
            # Not SSLSocket.shutdown: later reads would return the encrypted bytes.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already

    def close(self) -> None:
        """Close the connection; can be called repeatedly."""
        self._socket.close()
