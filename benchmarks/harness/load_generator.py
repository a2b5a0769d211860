"""Load generator: keep-alive connections over raw sockets in one thread, one request at a time on each.

It is cheap enough to saturate any server here; `Outcome.cpu` reports its own CPU time. Each response's status
is checked and each body is counted to its end. A body may be discarded in the kernel (MSG_TRUNC, tcp(7)), so
that only sending it is measured.
"""

from __future__ import annotations

import gc
import random
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

Address = tuple[str, int]

HEAD_READ_SIZE: Final = 4 * 1024
"""Maximum number of bytes per read while a head is expected."""
SINK_SIZE: Final = 4 << 20
TIMEOUT_S: Final = 30.0
"""Seconds without a byte on any connection after which the server counts as dead."""


class UnexpectedAnswer(Exception):
    """A response was not the one to be measured."""


@dataclass(slots=True)
class Outcome:
    """The result of a run."""

    requests: int = 0
    seconds: float = 0.0
    received: int = 0
    """Bytes, heads included."""
    cpu: float = 0.0
    """CPU seconds of the load itself."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    def add(self, other: Outcome) -> None:
        """Add another run."""
        self.requests += other.requests
        self.seconds += other.seconds
        self.received += other.received
        self.cpu += other.cpu


def get(path: str, token: str = "", **fields: str) -> bytes:
    """Build a GET request; keyword names become field names, with a dash for each underscore."""
    if token:
        fields["Authorization"] = f"Bearer {token}"
    lines = [f"GET {path} HTTP/1.1", "Host: bench"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


@dataclass(slots=True)
class _Connection:
    """One keep-alive connection and what is still to be received of its response."""

    sock: socket.socket
    head: bytes = b""
    remaining: int = 0
    """Bytes of the body."""
    requests_sent: int = 0


@dataclass(slots=True)
class Load:
    """A run: `requests` drawn at random, sent over `connections` keep-alive connections."""

    address: Address
    requests: Sequence[bytes]
    connections: int = 32
    status: bytes = b"200"
    """The status that every response has to have."""
    drop: bool = True
    """Whether bodies are discarded in the kernel; otherwise they are copied as by a client library."""
    seed: int = 1
    tls: ssl.SSLContext | None = None
    """With TLS, `drop` has to be false, and responses have to be small."""
    _sink: bytearray = field(default_factory=lambda: bytearray(SINK_SIZE))

    def run(self, *, seconds: float = 0.0, each: int = 0) -> Outcome:
        """Run for `seconds`, or for `each` responses per connection; OSError, UnexpectedAnswer."""
        with _connected(self.address, self.connections, self.tls) as connections, _gc_disabled():
            outcome, requests = Outcome(), self._random_requests()
            poll, by_descriptor = select.epoll(), {}
            started_at, cpu_before = time.perf_counter(), time.process_time()
            for connection in connections:
                by_descriptor[connection.sock.fileno()] = connection
                poll.register(connection.sock, select.EPOLLIN)
                self._send(connection, next(requests))
            ends_at = started_at + (seconds or float("inf"))
            active = len(connections)
            while active and time.perf_counter() < ends_at:
                ready = poll.poll(TIMEOUT_S)
                if not ready:
                    raise UnexpectedAnswer("the server stopped responding")
                for descriptor, _event in ready:
                    connection = by_descriptor[descriptor]
                    if self._read_all(connection, outcome):
                        outcome.requests += 1
                        if each and connection.requests_sent >= each:
                            poll.unregister(descriptor)
                            active -= 1
                        else:
                            self._send(connection, next(requests))
            outcome.seconds = time.perf_counter() - started_at
            outcome.cpu = time.process_time() - cpu_before
            poll.close()
        return outcome

    def _random_requests(self) -> Iterator[bytes]:
        draw, requests = random.Random(self.seed).random, self.requests  # noqa: S311 - no secret
        count = len(requests)
        while True:
            yield requests[int(draw() * count)]

    def _send(self, connection: _Connection, request: bytes) -> None:
        connection.requests_sent += 1
        connection.sock.send(request)

    def _read_all(self, connection: _Connection, outcome: Outcome) -> bool:
        """Like `_read`, with what TLS has decrypted and epoll does not report."""
        complete = self._read(connection, outcome)
        if self.tls is not None:
            while not complete and connection.sock.pending():  # type: ignore[attr-defined]
                complete = self._read(connection, outcome)
        return complete

    def _read(self, connection: _Connection, outcome: Outcome) -> bool:
        """Read what arrived; return whether the response is complete."""
        if connection.remaining:
            wanted = min(connection.remaining, SINK_SIZE)
            count = connection.sock.recv_into(self._sink, wanted, socket.MSG_TRUNC if self.drop else 0)
            connection.remaining -= count
        else:
            data = connection.sock.recv(HEAD_READ_SIZE)
            count = len(data)
            self._parse_head(connection, data)
        if not count:
            raise UnexpectedAnswer("the server closed a connection")
        outcome.received += count
        return not connection.remaining and not connection.head

    def _parse_head(self, connection: _Connection, data: bytes) -> None:
        data = connection.head + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            connection.head = data
            return
        if data[9:12] != self.status:
            raise UnexpectedAnswer(f"wanted {self.status.decode()}: {data[: end + 200]!r}")
        connection.head = b""
        connection.remaining = _content_length(data, end) - (len(data) - end - 4)


def _content_length(data: bytes, end: int) -> int:
    header_start = data.find(b"\r\nContent-Length: ", 0, end)
    if header_start < 0:  # HAProxy sends names in lower case
        header_start = data.lower().find(b"\r\ncontent-length: ", 0, end)
    if header_start < 0:
        raise UnexpectedAnswer(f"a response without a Content-Length: {data[:end]!r}")
    return int(data[header_start + 18 : data.find(b"\r\n", header_start + 18)])


@contextmanager
def _connected(address: Address, count: int, tls: ssl.SSLContext | None) -> Iterator[list[_Connection]]:
    connections: list[_Connection] = []
    try:
        for _ in range(count):
            sock = socket.create_connection(address, timeout=TIMEOUT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connections.append(_Connection(tls.wrap_socket(sock) if tls else sock))
        yield connections
    finally:
        for connection in connections:
            connection.sock.close()


@contextmanager
def _gc_disabled() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def answer(address: Address, request: bytes) -> tuple[int, bytes]:
    """Send one request on a connection of its own; return the status and the body. OSError."""
    with socket.create_connection(address, timeout=TIMEOUT_S) as sock:
        sock.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        data = b"".join(iter(lambda: sock.recv(1 << 20), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head[9:12]), body


def until(condition: Callable[[], bool], deadline: float, pause: float = 0.01) -> float:
    """Wait for a condition; return the seconds it took. TimeoutError."""
    started_at = time.perf_counter()
    while not condition():
        if time.perf_counter() - started_at > deadline:
            raise TimeoutError(f"not within {deadline:g} s")
        time.sleep(pause)
    return time.perf_counter() - started_at
