"""Requests the statuses of some jobs all the time: when a change is shown, and what was too old.

A change is identified by its number, which the farm writes into the job's `attempt`; numbers grow.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import orjson

from benchmarks.harness.load_generator import TIMEOUT_S, get
from benchmarks.harness.servers import Server

REQUESTS_PER_S: Final = 200.0

Renames = Mapping[int, tuple[str, float]]
"""By the number of a change: the job, and when its record was renamed, in seconds of perf_counter."""


@dataclass
class _Answer:
    sent_at: float
    received_at: float
    attempt: int


@dataclass
class StatusReader:
    """Requests jobs in turn, on one connection, in a thread."""

    server: Server
    token: str
    job_ids: Sequence[str]
    answers: dict[str, list[_Answer]] = field(default_factory=lambda: defaultdict(list))
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        with socket.create_connection(self.server.address, timeout=TIMEOUT_S) as sock:
            number = 0
            while not self._stop.wait(1 / REQUESTS_PER_S):
                job_id = self.job_ids[number % len(self.job_ids)]
                sent_at = time.perf_counter()
                sock.sendall(get(f"/api/jobs/{job_id}", self.token))
                attempt = _read_job(sock)["attempt"]
                self.answers[job_id].append(_Answer(sent_at, time.perf_counter(), attempt))
                number += 1

    def delays(self, renamed_at: Renames) -> list[float]:
        """Return the seconds from each change until the first status that shows it, or a later one."""
        return [
            next(
                (one.received_at - at for one in self.answers[job_id] if one.attempt >= number), float("inf")
            )
            for number, (job_id, at) in renamed_at.items()
        ]

    def too_old(self, renamed_at: Renames, max_age_s: float) -> int:
        """Count statuses that were older than the service promises."""
        return sum(
            one.attempt < number
            for number, (job_id, at) in renamed_at.items()
            for one in self.answers[job_id]
            if one.sent_at > at + max_age_s
        )


def _read_job(sock: socket.socket) -> dict[str, Any]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(1 << 16)
    return dict(orjson.loads(body))
