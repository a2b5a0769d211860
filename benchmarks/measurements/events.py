"""Events: the delay from a change to its event, and the cost of 2,000 streams."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.harness import farm, host_info, latency_probe, load_generator, process, servers, table
from benchmarks.harness.interleave import Plan
from benchmarks.harness.latency_probe import percentile
from benchmarks.harness.load_generator import answer, get
from benchmarks.harness.process import Memory
from benchmarks.harness.servers import Server
from benchmarks.harness.sse_readers import SseReaders

JOBS: Final = 10_000
MIX: Final = (("completed", 95.0), ("failed", 4.0), ("queued", 1.0))
UNFINISHED_JOBS: Final = 20
"""Jobs that render, and change."""
CHANGES: Final = 500
CHANGE_INTERVAL_S: Final = 0.02
"""Seconds between two changes when the delay of one reader is measured."""
STREAMS: Final = 2000
BROADCAST_CHANGES: Final = 100
BROADCAST_INTERVAL_S: Final = 0.15
"""Seconds between two changes that are each sent to 2,000 streams."""

DELAY_GOAL_MS: Final = table.Goal(at_most=100)
STREAM_MEMORY_GOAL_KB: Final = table.Goal(at_most=60)
STATUS_GOAL_MS: Final = table.Goal(at_most=50)
DELIVERY_GOAL_PERCENT: Final = table.Goal(at_least=100)


def run(plan: Plan) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(farm.scratch("events", plan.scratch)))
        server = stack.enter_context(bench.server())
        table.title(
            f"events: {JOBS:,} jobs, {process.watches(server.process.pid):,} watches, {UNFINISHED_JOBS} jobs "
            f"under way; {host_info.describe_placement()}; {host_info.load_average()}"
        )
        _measure_one_reader(bench, server, int(plan.pick(CHANGES, 50)))
        _measure_many_readers(
            bench, server, int(plan.pick(STREAMS, 300)), int(plan.pick(BROADCAST_CHANGES, 20))
        )


class Bench:
    """The farm of this benchmark."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._root = scratch / "jobs"
        self.unchanging = farm.fill(self._root, JOBS, mix=MIX)["completed"]
        self._attempts = count(1)
        for _ in range(UNFINISHED_JOBS):
            self.change()
        self.token = servers.token(scratch)

    def change(self) -> tuple[int, float]:
        """Replace a record as a farm does; return the number of the change, and when the rename was done."""
        number = next(self._attempts)
        farm.put(self._root, f"live-{number % UNFINISHED_JOBS}", "rendering", attempt=number)
        return number, time.perf_counter()

    def readers(self, server: Server, streams: int) -> SseReaders:
        """Open this many streams of the rendering jobs."""
        return SseReaders(server.address, get("/api/events?status=rendering", self.token), streams)

    @contextmanager
    def server(self) -> Iterator[Server]:
        """Start a server, and wait until its index is complete and its watches are active."""
        time.sleep(farm.STABLE_AFTER_S)
        with servers.jobsvc(self._root, self._scratch, "--watch", "events") as server:
            load_generator.until(lambda: answer(server.address, get("/readyz"))[0] == 200, 60)
            load_generator.until(lambda: process.watches(server.process.pid) >= JOBS, 60, pause=0.5)
            time.sleep(1)
            yield server


def _measure_one_reader(bench: Bench, server: Server, changes: int) -> None:
    """Measure one reader, one change after the other: from the rename to the received event."""
    with bench.readers(server, 1) as readers:
        load_generator.until(lambda: readers.ready_count == 1, 30)
        done = dict(_change_at_intervals(bench, changes, CHANGE_INTERVAL_S))
        load_generator.until(lambda: len(readers.delivered) == changes, 30)
    waits = [(readers.first[number] - renamed_at) * 1e3 for number, renamed_at in done.items()]
    table.row("from rename to event: median", [median(waits)], " ms")
    table.row("from rename to event: p95", [percentile(waits, 95)], " ms", DELAY_GOAL_MS)
    table.row("from rename to event: longest", [max(waits)], " ms")


def _measure_many_readers(bench: Bench, server: Server, streams: int, changes: int) -> None:
    """Measure many readers: each change is sent to each, while others poll."""
    memory = Memory(server.process.pid)
    with bench.readers(server, streams) as readers:
        load_generator.until(lambda: readers.ready_count == streams, 120)
        idle_memory = (memory.current() - memory.initial) / streams / 1e3
        requests = [get(f"/api/jobs/{job_id}", bench.token) for job_id in bench.unchanging[:1000]]
        with latency_probe.probe_meanwhile(server.address, requests) as idle_latencies:
            time.sleep(changes * BROADCAST_INTERVAL_S / 4)
        before = server.cpu()
        alone = dict(_change_at_intervals(bench, changes // 2, BROADCAST_INTERVAL_S))
        load_generator.until(lambda: min(readers.delivered[number] for number in alone) == streams, 60)
        cpu = (server.cpu() - before) / sum(readers.delivered[number] for number in alone)
        with latency_probe.probe_meanwhile(server.address, requests) as busy_latencies:
            done = dict(_change_at_intervals(bench, changes, BROADCAST_INTERVAL_S))
            load_generator.until(lambda: min(readers.delivered[number] for number in done) == streams, 60)
        peak_memory = memory.peak_growth() / streams / 1e3
    delivered = sum(readers.delivered[number] for number in done)
    waits = [(readers.last[number] - at) * 1e3 for number, at in done.items()]
    table.row(
        f"{streams:,} streams: received changes",
        [100 * delivered / changes / streams],
        " %",
        DELIVERY_GOAL_PERCENT,
    )
    table.row(f"{streams:,} streams: memory of each", [idle_memory], " kB", STREAM_MEMORY_GOAL_KB)
    table.row(f"{streams:,} streams: memory of each at the peak", [peak_memory], " kB", STREAM_MEMORY_GOAL_KB)
    table.row("from rename to event at the last of them: p95", [percentile(waits, 95)], " ms")
    table.row("server CPU for one event to one stream", [cpu * 1e6], " us")
    table.row("status of others while nothing changes: p99", [idle_latencies.p99], " ms")
    table.row("status of others while events are sent: p99", [busy_latencies.p99], " ms", STATUS_GOAL_MS)
    if readers.ended:
        table.note(f"{readers.ended} streams were closed by the server")


def _change_at_intervals(bench: Bench, changes: int, interval_s: float) -> Iterator[tuple[int, float]]:
    started_at = time.perf_counter()
    for number in range(changes):
        time.sleep(max(started_at + number * interval_s - time.perf_counter(), 0))
        yield bench.change()
