"""Latency: one request at a time at a steady rate, each timed from when it was due.

A stall thus counts for every request that was due during it, not only for the one that met it.
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

from benchmarks.harness.load_generator import HEAD_READ_SIZE, TIMEOUT_S, Address, UnexpectedAnswer

NICENESS: Final = -5
"""Of the probing process, so that other load on its core does not delay it."""
REQUESTS_PER_S: Final = 200.0
"""Requests a second."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


@dataclass(slots=True)
class Latencies:
    """The results of a probe: milliseconds, one for each request."""

    milliseconds: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        """Return the latency that one in a hundred exceeds."""
        return percentile(self.milliseconds, 99)

    @property
    def worst(self) -> float:
        """Return the longest latency."""
        return max(self.milliseconds)


def probe(
    address: Address,
    requests: Sequence[bytes],
    seconds: float,
    *,
    rate: float = REQUESTS_PER_S,
    stop: Connection | None = None,
) -> Latencies:
    """Send `requests` in turn for `seconds`, or until data arrives on `stop`. OSError, UnexpectedAnswer."""
    latencies = Latencies()
    with socket.create_connection(address, timeout=TIMEOUT_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started_at = time.perf_counter()
        for number in range(int(seconds * rate)):
            due = started_at + number / rate
            if (early := due - time.perf_counter()) > 0:
                time.sleep(early)
            sock.sendall(requests[number % len(requests)])
            _read_answer(sock)
            latencies.milliseconds.append((time.perf_counter() - due) * 1e3)
            if stop is not None and stop.poll():
                break
    return latencies


def _read_answer(sock: socket.socket) -> None:
    """Read one response with a Content-Length, which has to be a 200."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _receive(sock)
    if data[9:12] != b"200":
        raise UnexpectedAnswer(f"wanted 200: {data[:1000]!r}")
    value_start = data.index(b"\r\nContent-Length: ") + 18
    remaining = int(data[value_start : data.index(b"\r\n", value_start)]) - (len(data) - end - 4)
    while remaining > 0:
        remaining -= len(_receive(sock))


def _receive(sock: socket.socket) -> bytes:
    data = sock.recv(HEAD_READ_SIZE)
    if not data:
        raise UnexpectedAnswer("the server closed the connection")
    return data


@contextmanager
def probe_meanwhile(
    address: Address, requests: Sequence[bytes], *, rate: float = REQUESTS_PER_S, max_seconds: float = 600.0
) -> Iterator[Latencies]:
    """Probe from another process during the block; the result is in Latencies when the block ends."""
    latencies = Latencies()
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()

    def work() -> None:
        with suppress(PermissionError):  # root alone may
            os.nice(NICENESS)
        try:
            theirs.send(probe(address, requests, max_seconds, rate=rate, stop=theirs))
        except (OSError, UnexpectedAnswer) as failed:
            theirs.send(failed)

    process = fork.Process(target=work, daemon=True)
    process.start()
    try:
        yield latencies
    finally:
        ours.send("stop")
        result = ours.recv() if ours.poll(TIMEOUT_S) else UnexpectedAnswer("the probe never ended")
        process.join(5)
    if isinstance(result, BaseException):
        raise result
    latencies.milliseconds.extend(result.milliseconds)
