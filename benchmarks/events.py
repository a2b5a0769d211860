"""Events: how soon a change is told, and what 2,000 streams at once cost and keep from others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import farm, host_info, latency_probe, load_generator, process, servers, table
from benchmarks.interleave import Plan
from benchmarks.latency_probe import percentile
from benchmarks.load_generator import answer, get
from benchmarks.process import Memory
from benchmarks.servers import Server
from benchmarks.sse_readers import Listeners

JOBS: Final = 10_000
MIX: Final = (("completed", 95.0), ("failed", 4.0), ("queued", 1.0))
UNDER_WAY: Final = 20
"""Jobs that render, and change."""
CHANGES: Final = 500
PACE: Final = 0.02
"""Seconds between two changes, when it is asked how soon one is told."""
STREAMS: Final = 2000
TOLD_TO_MANY: Final = 100
MANY_PACE: Final = 0.15
"""Seconds between two changes, each of which 2,000 are told of."""

SOON: Final = table.Goal(most=100)
MEMORY: Final = table.Goal(most=60)
OTHERS: Final = table.Goal(most=50)
EVERY: Final = table.Goal(least=100)


def run(plan: Plan) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(farm.scratch("events", plan.scratch)))
        server = stack.enter_context(bench.server())
        table.title(
            f"events: {JOBS:,} jobs, {process.watches(server.process.pid):,} watches, {UNDER_WAY} jobs under "
            f"way; {host_info.placed()}; {host_info.load_average()}"
        )
        _how_soon(bench, server, int(plan.pick(CHANGES, 50)))
        _to_many(bench, server, int(plan.pick(STREAMS, 300)), int(plan.pick(TOLD_TO_MANY, 20)))


class Bench:
    """The farm of this benchmark."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._root = scratch / "jobs"
        self.quiet = farm.fill(self._root, JOBS, mix=MIX)["completed"]
        self._numbers = count(1)
        for _ in range(UNDER_WAY):
            self.change()
        self.token = servers.token(scratch)

    def change(self) -> tuple[int, float]:
        """Replace a record as a farm does; returns the change's number, and when the rename was done."""
        number = next(self._numbers)
        farm.put(self._root, f"live-{number % UNDER_WAY}", "rendering", attempt=number)
        return number, time.perf_counter()

    def listeners(self, server: Server, streams: int) -> Listeners:
        """Open so many streams of the jobs that render."""
        return Listeners(server.address, get("/api/events?status=rendering", self.token), streams)

    @contextmanager
    def server(self) -> Iterator[Server]:
        """Start a server, and wait until its index is whole and its watches are in force."""
        time.sleep(farm.SETTLE)
        with servers.jobsvc(self._root, self._scratch, "--watch", "events") as server:
            load_generator.until(lambda: answer(server.address, get("/readyz"))[0] == 200, 60)
            load_generator.until(lambda: process.watches(server.process.pid) >= JOBS, 60, pause=0.5)
            time.sleep(1)
            yield server


def _how_soon(bench: Bench, server: Server, changes: int) -> None:
    """One reader, one change after the other: from the rename to the event in the reader's hands."""
    with bench.listeners(server, 1) as listeners:
        load_generator.until(lambda: listeners.present == 1, 30)
        done = dict(_paced(bench, changes, PACE))
        load_generator.until(lambda: len(listeners.told) == changes, 30)
    waits = [(listeners.first[number] - at) * 1e3 for number, at in done.items()]
    table.row("from rename to event: median", [median(waits)], " ms")
    table.row("from rename to event: p95", [percentile(waits, 95)], " ms", SOON)
    table.row("from rename to event: longest", [max(waits)], " ms")


def _to_many(bench: Bench, server: Server, streams: int, changes: int) -> None:
    """Many readers: each change is told to each, while others poll."""
    memory = Memory(server.process.pid)
    with bench.listeners(server, streams) as listeners:
        load_generator.until(lambda: listeners.present == streams, 120)
        kept = (memory.now() - memory.before) / streams / 1e3
        requests = [get(f"/api/jobs/{job_id}", bench.token) for job_id in bench.quiet[:1000]]
        with latency_probe.meanwhile(server.address, requests) as calm:
            time.sleep(changes * MANY_PACE / 4)
        before = server.cpu()
        alone = dict(_paced(bench, changes // 2, MANY_PACE))
        load_generator.until(lambda: min(listeners.told[number] for number in alone) == streams, 60)
        cpu = (server.cpu() - before) / sum(listeners.told[number] for number in alone)
        with latency_probe.meanwhile(server.address, requests) as busy:
            done = dict(_paced(bench, changes, MANY_PACE))
            load_generator.until(lambda: min(listeners.told[number] for number in done) == streams, 60)
        grown = memory.growth() / streams / 1e3
    told = sum(listeners.told[number] for number in done)
    waits = [(listeners.last[number] - at) * 1e3 for number, at in done.items()]
    table.row(f"{streams:,} streams: told of what changed", [100 * told / changes / streams], " %", EVERY)
    table.row(f"{streams:,} streams: memory of each", [kept], " kB", MEMORY)
    table.row(f"{streams:,} streams: memory of each at the peak", [grown], " kB", MEMORY)
    table.row("from rename to event at the last of them: p95", [percentile(waits, 95)], " ms")
    table.row("server CPU for one event to one stream", [cpu * 1e6], " us")
    table.row("status of others while nothing changes: p99", [calm.p99], " ms")
    table.row("status of others while they are told: p99", [busy.p99], " ms", OTHERS)
    if listeners.ended:
        table.note(f"{listeners.ended} streams were ended by the server")


def _paced(bench: Bench, changes: int, pace: float) -> Iterator[tuple[int, float]]:
    begun = time.perf_counter()
    for number in range(changes):
        time.sleep(max(begun + number * pace - time.perf_counter(), 0))
        yield bench.change()
