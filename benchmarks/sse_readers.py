"""Many readers of event streams in one thread: what each was told, and when.

A change is known again by its number, which the farm writes into the job's `attempt`.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections import Counter
from threading import Thread
from typing import Final, Self

from benchmarks.load_generator import SILENCE, Address

_READ: Final = 1 << 16
_NUMBER: Final = re.compile(rb'"attempt":(\d+),')
_PRESENT: Final = b"event: present\n"
_KEPT: Final = 64
"""Bytes of what came before, so that nothing is missed which comes in two pieces."""


class Listeners:
    """Streams that are read for the length of a block."""

    def __init__(self, address: Address, request: bytes, count: int) -> None:
        self.present = 0
        """Streams that have been told all present states."""
        self.told: Counter[int] = Counter()
        """How many streams were told of a change, by its number; of those after the present states."""
        self.first: dict[int, float] = {}
        """When the first was told of it, in seconds of perf_counter."""
        self.last: dict[int, float] = {}
        """When the latest was."""
        self.ended = 0
        """Streams that the server ended."""
        self._rest = dict[int, bytes]()
        self._numbers = dict[int, set[int]]()
        self._sockets: dict[int, socket.socket] = {}
        self._stop = False
        self._poll = select.epoll()
        for _ in range(count):
            self._begin(address, request)
        self._thread = Thread(target=self._listen, name="listeners")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()
        for sock in self._sockets.values():
            sock.close()
        self._poll.close()

    def _begin(self, address: Address, request: bytes) -> None:
        sock = socket.create_connection(address, timeout=SILENCE)
        sock.sendall(request)
        sock.settimeout(0)
        self._sockets[sock.fileno()] = sock
        self._rest[sock.fileno()] = b""
        self._poll.register(sock, select.EPOLLIN)

    def _listen(self) -> None:
        while not self._stop:
            for descriptor, _event in self._poll.poll(0.1):
                data = self._sockets[descriptor].recv(_READ)
                if data:
                    self._take(descriptor, data, time.perf_counter())
                else:
                    self.ended += 1
                    self._poll.unregister(descriptor)

    def _take(self, descriptor: int, data: bytes, now: float) -> None:
        data = self._rest[descriptor] + data
        numbers = self._numbers.get(descriptor)
        if numbers is None:
            at = data.find(_PRESENT)
            if at >= 0:
                self.present += 1
                numbers = self._numbers[descriptor] = set()
                data = data[at:]
        if numbers is not None:
            for match in _NUMBER.finditer(data):
                self._note(numbers, int(match[1]), now)
        self._rest[descriptor] = data[-_KEPT:]

    def _note(self, numbers: set[int], number: int, now: float) -> None:
        if number not in numbers:
            numbers.add(number)
            self.told[number] += 1
            self.first.setdefault(number, now)
            self.last[number] = now
