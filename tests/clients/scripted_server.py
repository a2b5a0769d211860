"""A server in a thread that answers with prepared bytes, right or wrong; for blocking clients."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TypeAlias

Step: TypeAlias = "bytes | Callable[[ScriptedConnection], object]"
"""Bytes that are sent after the next request has arrived, or a function that does something else."""

TIMEOUT_S: Final = 15.0


def response(body: bytes = b"", *fields: str, status: str = "200 OK") -> bytes:
    """Build a response with a correct Content-Length."""
    return head(f"Content-Length: {len(body)}", *fields, status=status) + body


def head(*fields: str, status: str = "200 OK") -> bytes:
    """Build the head of a response."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1")


class ScriptedConnection:
    """One accepted connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._buffer = b""

    def request(self) -> bytes:
        """Return the next request with its body; empty if the client closes."""
        while b"\r\n\r\n" not in self._buffer:
            if not (data := self.socket.recv(65536)):
                return b""
            self._buffer += data
        lines, _, rest = self._buffer.partition(b"\r\n\r\n")
        sizes = [line for line in lines.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        size = int(sizes[0].partition(b":")[2]) if sizes else 0
        while len(rest) < size:
            rest += self.socket.recv(65536)
        self._buffer = rest[size:]
        return lines + b"\r\n\r\n" + rest[:size]

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def wait_closed(self) -> None:
        """Be silent until the client closes the connection, or the server stops."""
        with suppress(OSError):
            while self.socket.recv(65536):
                pass


def then(*steps: Step) -> Step:
    """Do several things for one request."""

    def run(connection: ScriptedConnection) -> None:
        for step in steps:
            perform(step, connection)

    return run


def perform(step: Step, connection: ScriptedConnection) -> None:
    if isinstance(step, bytes):
        connection.send(step)
    else:
        step(connection)


def silence(connection: ScriptedConnection) -> None:
    """Send nothing until the client closes the connection."""
    connection.wait_closed()


def reset(connection: ScriptedConnection) -> None:
    """Close the connection with a TCP reset."""
    connection.reset()


def tunnel(port: int) -> Step:
    """Answer a CONNECT request, and relay the connection to a port of loopback."""

    def run(connection: ScriptedConnection) -> None:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as upstream:
            connection.send(head(status="200 Connection established"))
            peers = {connection.socket: upstream, upstream: connection.socket}
            while True:
                for source in select.select(peers, [], [], TIMEOUT_S)[0]:
                    if not (data := source.recv(65536)):
                        return
                    peers[source].sendall(data)

    return run


class ScriptedServer:
    """Serves the n-th connection by the n-th script, one step for each request; then closes it.

    Connections beyond the last script are served by it again.
    """

    def __init__(
        self,
        *scripts: Sequence[Step],
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        on_accept: Step = b"",
    ) -> None:
        """Perform the step `on_accept` at once on each new connection, before TLS."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self._scripts = scripts
        self._tls = tls
        self._on_accept = on_accept
        self._threads: list[threading.Thread] = []
        self._connections: list[ScriptedConnection] = []
        self._stopping = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        self.accepted_count = 0
        """Number of accepted connections."""
        self.requests: list[bytes] = []
        """All requests, as received."""

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _start(self, function: Callable[..., object], *args: object) -> None:
        thread = threading.Thread(target=function, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._stopping.is_set():
                sock, _ = self._listener.accept()
                script = self._scripts[min(self.accepted_count, len(self._scripts) - 1)]
                self.accepted_count += 1
                self._start(self._serve, sock, script)

    def _serve(self, sock: socket.socket, script: Sequence[Step]) -> None:
        with suppress(OSError):
            sock.settimeout(TIMEOUT_S)
            perform(self._on_accept, ScriptedConnection(sock))
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            connection = ScriptedConnection(sock)
            self._connections.append(connection)
            for step in script:
                if not (request := connection.request()):
                    break
                self.requests.append(request)
                perform(step, connection)
        sock.close()
