"""How long others wait: one request at a time at a steady pace, each timed from when it was due.

So a stall is felt by every request that was due in it, and not only by the one that met it.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

from benchmarks.load_generator import HEAD, SILENCE, Address, Unexpected

NICENESS: Final = -5
"""Of the process that probes, so that other load on its core does not delay it."""
RATE: Final = 200.0
"""Requests a second."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the value that `percent` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


@dataclass(slots=True)
class Waits:
    """What a probe found: milliseconds, one for each request."""

    millis: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        """The wait that one in a hundred exceeds."""
        return percentile(self.millis, 99)

    @property
    def worst(self) -> float:
        """The longest wait."""
        return max(self.millis)


def probe(
    address: Address,
    requests: Sequence[bytes],
    seconds: float,
    *,
    rate: float = RATE,
    stop: Connection | None = None,
) -> Waits:
    """Ask `requests` in turn for `seconds`, or until something comes through `stop`. OSError, Unexpected."""
    waits = Waits()
    with socket.create_connection(address, timeout=SILENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.perf_counter()
        for number in range(int(seconds * rate)):
            due = begun + number / rate
            if (early := due - time.perf_counter()) > 0:
                time.sleep(early)
            sock.sendall(requests[number % len(requests)])
            _whole_answer(sock)
            waits.millis.append((time.perf_counter() - due) * 1e3)
            if stop is not None and stop.poll():
                break
    return waits


def _whole_answer(sock: socket.socket) -> None:
    """Read one answer with a Content-Length, which has to be a 200."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _some(sock)
    if data[9:12] != b"200":
        raise Unexpected(f"wanted 200: {data[:1000]!r}")
    at = data.index(b"\r\nContent-Length: ") + 18
    left = int(data[at : data.index(b"\r\n", at)]) - (len(data) - end - 4)
    while left > 0:
        left -= len(_some(sock))


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(HEAD)
    if not data:
        raise Unexpected("the server closed the connection")
    return data


@contextmanager
def meanwhile(
    address: Address, requests: Sequence[bytes], *, rate: float = RATE, most: float = 600.0
) -> Iterator[Waits]:
    """Probe from another process while the block runs; what was found is in Waits when the block is left."""
    waits = Waits()
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()

    def work() -> None:
        with suppress(PermissionError):  # root alone may
            os.nice(NICENESS)
        try:
            theirs.send(probe(address, requests, most, rate=rate, stop=theirs))
        except (OSError, Unexpected) as failed:
            theirs.send(failed)

    process = fork.Process(target=work, daemon=True)
    process.start()
    try:
        yield waits
    finally:
        ours.send("stop")
        found = ours.recv() if ours.poll(SILENCE) else Unexpected("the probe never ended")
        process.join(5)
    if isinstance(found, BaseException):
        raise found
    waits.millis.extend(found.millis)
