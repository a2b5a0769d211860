"""Many readers of event streams in one thread: what each received, and when.

A change is identified by its number, which the farm writes into the job's `attempt`.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections import Counter
from threading import Thread
from typing import Final, Self

from benchmarks.harness.load_generator import TIMEOUT_S, Address

_READ_SIZE: Final = 1 << 16
_ATTEMPT: Final = re.compile(rb'"attempt":(\d+),')
_PRESENT: Final = b"event: present\n"
_OVERLAP: Final = 64
"""Bytes kept of earlier data, so that a match across two reads is found."""


class SseReaders:
    """Streams that are read during a block."""

    def __init__(self, address: Address, request: bytes, count: int) -> None:
        self.ready_count = 0
        """Streams that have received all present states."""
        self.delivered: Counter[int] = Counter()
        """How many streams received a change, by its number; without those before the present states."""
        self.first: dict[int, float] = {}
        """When the first stream received it, in seconds of perf_counter."""
        self.last: dict[int, float] = {}
        """When the latest did."""
        self.ended = 0
        """Streams that the server closed."""
        self._overlap = dict[int, bytes]()
        self._seen = dict[int, set[int]]()
        self._sockets: dict[int, socket.socket] = {}
        self._stop = False
        self._poll = select.epoll()
        for _ in range(count):
            self._connect(address, request)
        self._thread = Thread(target=self._run, name="listeners")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()
        for sock in self._sockets.values():
            sock.close()
        self._poll.close()

    def _connect(self, address: Address, request: bytes) -> None:
        sock = socket.create_connection(address, timeout=TIMEOUT_S)
        sock.sendall(request)
        sock.settimeout(0)
        self._sockets[sock.fileno()] = sock
        self._overlap[sock.fileno()] = b""
        self._poll.register(sock, select.EPOLLIN)

    def _run(self) -> None:
        while not self._stop:
            for descriptor, _event in self._poll.poll(0.1):
                data = self._sockets[descriptor].recv(_READ_SIZE)
                if data:
                    self._parse(descriptor, data, time.perf_counter())
                else:
                    self.ended += 1
                    self._poll.unregister(descriptor)

    def _parse(self, descriptor: int, data: bytes, now: float) -> None:
        data = self._overlap[descriptor] + data
        numbers = self._seen.get(descriptor)
        if numbers is None:
            at = data.find(_PRESENT)
            if at >= 0:
                self.ready_count += 1
                numbers = self._seen[descriptor] = set()
                data = data[at:]
        if numbers is not None:
            for match in _ATTEMPT.finditer(data):
                self._record(numbers, int(match[1]), now)
        self._overlap[descriptor] = data[-_OVERLAP:]

    def _record(self, numbers: set[int], number: int, now: float) -> None:
        if number not in numbers:
            numbers.add(number)
            self.delivered[number] += 1
            self.first.setdefault(number, now)
            self.last[number] = now
