"""Starts of the service over a large root, without and with requests from the first moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from benchmarks.harness import farm, latency_probe, process, servers
from benchmarks.harness.latency_probe import Latencies
from benchmarks.harness.load_generator import answer, get, until
from benchmarks.harness.process import Memory
from benchmarks.harness.servers import Server

REQUESTED_JOBS: Final = 997
"""Number of jobs that are requested in turn, spread over the root."""
POLL_INTERVAL_S: Final = 0.001
"""Seconds between two checks whether a change is visible."""
INDEX_TIMEOUT_S: Final = 900.0
"""Seconds for a first index."""
QUIET_S: Final = 1.0
"""Seconds without a further watch after which all are set."""


class IdleStart(NamedTuple):
    """A start without requests except the first; in seconds unless stated otherwise."""

    empty: float
    """Until the service responds on an empty root."""
    first: float
    """By how much later the first correct response for a job comes on the large root."""
    rate: float
    """Jobs per second of the first index."""
    memory: float
    """Kilobytes per job when everything is indexed and watched."""
    watcher: float
    """The same for the watcher process."""
    watching: float
    """From the end of the index to the last watch."""
    idle: float
    """Percent of a core, including the watcher, when nothing happens."""


class LoadedStart(NamedTuple):
    """A start with requests from its first moment."""

    latencies: Latencies
    """Of requests until everything is indexed and watched."""
    rate: float
    """Jobs a second of the first index."""
    delays_ms: list[float]
    """Milliseconds from a rename until a response has it."""


class Bench:
    """A farm, and fresh servers over it."""

    def __init__(self, scratch: Path, jobs: int, mix: tuple[tuple[str, float], ...]) -> None:
        self._jobs = jobs
        self._scratch = scratch
        self._root = scratch / "jobs"
        self._empty = scratch / "empty"
        self._empty.mkdir()
        ids = farm.fill(self._root, jobs, mix=mix)
        self.unfinished = ids["rendering"] + ids["queued"]
        known = [job_id for of_state in ids.values() for job_id in of_state]
        self._token = servers.token(scratch)
        self._requests = [
            self._status(known[number * len(known) // REQUESTED_JOBS]) for number in range(REQUESTED_JOBS)
        ]
        self._changes = count(1)
        time.sleep(farm.STABLE_AFTER_S)

    def idle_start(self, mode: str, seconds: float) -> IdleStart:
        """Start without requests; idle CPU is measured for `seconds`."""
        with self._server(self._empty, mode, b"404") as (server, empty):
            time.sleep(QUIET_S)
            before = _resident_memory(server)
        with self._server(self._root, mode, b"200") as (server, first):
            rate = _index_rate(server)
            arming = _wait_for_watches(server, mode)
            after = _resident_memory(server)
            ours, watcher = ((now - then) / self._jobs / 1e3 for now, then in zip(after, before, strict=True))
            return IdleStart(
                empty, first - empty, rate, ours, watcher, arming, _idle_cpu_percent(server, seconds)
            )

    def loaded_start(self, mode: str, changes: int) -> LoadedStart:
        """Start with requests from the first moment; then change jobs."""
        with self._server(self._root, mode, b"200") as (server, _):
            with latency_probe.probe_meanwhile(server.address, self._requests) as loading:
                rate = _index_rate(server)
                _wait_for_watches(server, mode)
            visible = [self._change(server, job_id) for job_id in self._sample(changes)]
        return LoadedStart(loading, rate, visible)

    def _sample(self, number: int) -> list[str]:
        """Choose unfinished jobs spread over their list."""
        return self.unfinished[:: max(len(self.unfinished) // number, 1)][:number]

    def _change(self, server: Server, job_id: str) -> float:
        """Replace a record as a farm does; return the milliseconds until a response has it."""
        number, request = next(self._changes), self._status(job_id)
        answer(server.address, request)
        farm.put(self._root, job_id, "rendering", attempt=number)
        started_at = time.perf_counter()
        until(lambda: _attempt(server, request) == number, 30, pause=POLL_INTERVAL_S)
        return (time.perf_counter() - started_at) * 1e3

    def _status(self, job_id: str) -> bytes:
        return get(f"/api/jobs/{job_id}", self._token)

    @contextmanager
    def _server(self, root: Path, mode: str, expected: bytes) -> Iterator[tuple[Server, float]]:
        """Start a server; yield it and the seconds until its first response, of the `expected` status."""
        started_at = time.perf_counter()
        with servers.jobsvc(root, self._scratch, "--watch", mode, all_cores=True) as server:
            status, _ = answer(server.address, self._requests[REQUESTED_JOBS // 2])
            assert status == int(expected)
            yield server, time.perf_counter() - started_at


def _index_rate(server: Server) -> float:
    """Wait for the first index, and read from the service's log how long it took."""
    until(lambda: b'"indexed"' in server.log.read_bytes(), INDEX_TIMEOUT_S, pause=0.05)
    (indexed,) = [line for line in server.log_lines() if line["event"] == "indexed"]
    return float(str(indexed["jobs"])) / float(str(indexed["seconds"]))


def _wait_for_watches(server: Server, mode: str) -> float:
    """Wait until no further watches are added; return the seconds that they took.

    The service's metric is read: listing the watches in the kernel would block it and the probe's core.
    """
    if mode != "events":
        return 0.0
    started_at, watches = time.perf_counter(), 0
    until(lambda: server.metric("watched_directories") > 0, INDEX_TIMEOUT_S, pause=0.2)
    changed = time.perf_counter()
    while time.perf_counter() - changed < QUIET_S:
        time.sleep(0.2)
        if (now := int(server.metric("watched_directories"))) != watches:
            watches, changed = now, time.perf_counter()
    return changed - started_at


def _resident_memory(server: Server) -> tuple[float, float]:
    """Return the resident memory of the service and of its watcher."""
    watchers = process.children(server.process.pid)
    return Memory(server.process.pid).initial, sum(Memory(pid).initial for pid in watchers)


def _idle_cpu_percent(server: Server, seconds: float) -> float:
    before = server.cpu()
    time.sleep(seconds)
    return 100 * (server.cpu() - before) / seconds


def _attempt(server: Server, request: bytes) -> int | None:
    attempt: int | None = orjson.loads(answer(server.address, request)[1]).get("attempt")
    return attempt
