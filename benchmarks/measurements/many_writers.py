"""500 jobs written at once with jobsvc.farm: status latency, delay of changes and CPU of the service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from benchmarks.harness import farm, farm_writers, host_info, load_generator, process, servers, table
from benchmarks.harness.farm_writers import FarmWriters
from benchmarks.harness.interleave import Plan
from benchmarks.harness.latency_probe import percentile, probe_meanwhile
from benchmarks.harness.load_generator import answer, get
from benchmarks.harness.servers import Server
from benchmarks.harness.sse_readers import SseReaders
from benchmarks.harness.status_reader import StatusReader
from tests.network_storage.share import NotPossible
from tests.slow_storage.fuse_mount import missing_requirement, mounted_storage

PROCESSES: Final = 20
JOBS_EACH: Final = 25
FINISHED_JOBS: Final = 2000
PHASE_S: Final = 10.0
"""Seconds with and without writers, in turn."""
SETTLE_S: Final = 2.0
CHANGE_INTERVAL_S: Final = 0.07
"""Seconds between two changes of the jobs whose delays are measured; not a divisor of a second."""
MARKED_JOBS: Final = tuple(f"marked-{number}" for number in range(10))
"""Jobs whose changes are timed."""
MAX_AGE_S: Final = 1.0
"""The service's default --max-age."""

STATUS_GOAL_MS: Final = table.Goal(at_most=50)
EVENT_GOAL_MS: Final = table.Goal(at_most=100)
POLL_GOAL_MS: Final = table.Goal(at_most=4000)
"""The interval of one second, the storage's cache time, and the time of the poll."""
FUSE_CACHE_S: Final = 1.0
NONE: Final = table.Goal(at_most=0)


def run(plan: Plan) -> None:
    """Measure and print."""
    processes = int(plan.pick(PROCESSES, 4))
    for where in (
        Where("events", "events", EVENT_GOAL_MS),
        Where("polling", "poll", POLL_GOAL_MS),
        Where("FUSE without events", "poll", POLL_GOAL_MS, fuse_cache_s=FUSE_CACHE_S),
    ):
        with ExitStack() as stack:
            scratch = stack.enter_context(farm.scratch("many-writers", plan.scratch))
            try:
                written, read = stack.enter_context(_storage(where, scratch))
            except (NotPossible, ChildProcessError) as reason:
                table.note(f"{where.name}: {reason}")
                continue
            bench = Bench(scratch, written, read, where)
            writers = stack.enter_context(farm_writers.rendering(written, processes, JOBS_EACH))
            server = stack.enter_context(bench.serve(writers))
            table.title(
                f"many-writers: {where.name}; {len(writers.job_ids)} jobs in {processes} processes, "
                f"{FINISHED_JOBS:,} finished jobs; {host_info.load_average()}"
            )
            table.note(f"{host_info.describe_placement()}, writers on both")
            _measure(plan, bench, server, writers)


@dataclass(frozen=True)
class Where:
    """A kind of storage, and how the service learns of changes."""

    name: str
    watch: str
    event_goal: table.Goal
    fuse_cache_s: float | None = None
    """Seconds for which the kernel caches names and attributes; None if it is not FUSE."""

    @property
    def status_goal(self) -> table.Goal | None:
        """Return the goal of the latency; none on FUSE, whose process has only what is left of a core."""
        return STATUS_GOAL_MS if self.fuse_cache_s is None else None

    @property
    def max_age_s(self) -> float:
        """Return the seconds after which a change has to be in a status."""
        return MAX_AGE_S + (self.fuse_cache_s or 0)


@contextmanager
def _storage(where: Where, scratch: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the directory of jobs as the farm and as the service see it."""
    if where.fuse_cache_s is None:
        yield scratch / "jobs", scratch / "jobs"
        return
    if missing := missing_requirement():
        raise NotPossible(f"there is no {missing} here")
    with mounted_storage(scratch, kernel_cache_s=where.fuse_cache_s) as storage:
        yield storage.folder / "jobs", storage.mountpoint / "jobs"


@dataclass
class Phase:
    """The results of one phase."""

    latencies: list[float]
    cpu_percent: float
    status_delays: list[float]
    """Seconds from the rename of a record until a status shows it."""
    event_delays: list[float]
    """Seconds until it is in the event stream."""
    too_old: int
    """Statuses of a record that was replaced more than `Where.max_age_s` before the request."""


class Bench:
    """The farm of this benchmark."""

    def __init__(self, scratch: Path, written: Path, read: Path, where: Where) -> None:
        self._scratch = scratch
        self.root = written
        self._read = read
        self.where = where
        farm.fill(self.root, FINISHED_JOBS, mix=(("completed", 95.0), ("failed", 5.0)))
        self._number = 1000
        for _ in MARKED_JOBS:
            self.change()
        self.token = servers.token(scratch)

    def change(self) -> tuple[str, int, float]:
        """Replace a record; return the job, the number of the change, and when the rename was done."""
        self._number += 1
        job_id = MARKED_JOBS[self._number % len(MARKED_JOBS)]
        farm.put(self.root, job_id, "rendering", attempt=self._number)
        return job_id, self._number, time.perf_counter()

    @contextmanager
    def serve(self, writers: FarmWriters) -> Iterator[Server]:
        """Start the service once all writers have created their jobs."""
        writers.wait_until_created()
        time.sleep(farm.STABLE_AFTER_S)
        with servers.jobsvc(self._read, self._scratch, "--watch", self.where.watch) as server:
            load_generator.until(lambda: answer(server.address, get("/readyz"))[0] == 200, 60)
            if self.where.watch == "events":
                load_generator.until(lambda: process.watches(server.process.pid) >= FINISHED_JOBS, 60)
            time.sleep(SETTLE_S)
            yield server


def _measure(plan: Plan, bench: Bench, server: Server, writers: FarmWriters) -> None:
    seconds = plan.pick(PHASE_S, 3)
    quiet: list[Phase] = []
    busy: list[Phase] = []
    for number in range(plan.rounds):
        for is_busy in (number % 2 == 0, number % 2 == 1):
            writers.resume() if is_busy else writers.pause()
            time.sleep(SETTLE_S)
            phase = _measure_phase(bench, server, writers.job_ids, seconds)
            (busy if is_busy else quiet).append(phase)
            if is_busy:
                writers.pause()
    for name, phases in (("without writers", quiet), ("with writers", busy)):
        _print_phases(name, phases, bench.where, seconds)
    for percent in (50, 99):
        ours, theirs = [
            [percentile(phase.latencies, percent) for phase in phases] for phases in (busy, quiet)
        ]
        table.ratio(f"status latency, p{percent}, with / without writers", ours, theirs)
    _complete(bench, server, writers)


def _print_phases(name: str, phases: list[Phase], where: Where, seconds: float) -> None:
    table.note(f"{name}, {seconds:g} s each")
    latencies = [[percentile(phase.latencies, percent) for phase in phases] for percent in (50, 99, 100)]
    table.row("status latency: median", latencies[0], " ms")
    table.row("status latency: p99", latencies[1], " ms", where.status_goal)
    table.row("status latency: maximum", latencies[2], " ms")
    status = [[percentile(phase.status_delays, percent) for phase in phases] for percent in (50, 95, 100)]
    table.row("from rename to status: median", status[0], " s")
    table.row("from rename to status: p95", status[1], " s")
    table.row("from rename to status: maximum", status[2], " s")
    table.row("statuses that were too old", [phase.too_old for phase in phases], "", NONE)
    events = [
        [1e3 * percentile(phase.event_delays, percent) for phase in phases] for percent in (50, 95, 100)
    ]
    table.row("from rename to event: median", events[0], " ms")
    table.row("from rename to event: p95", events[1], " ms", where.event_goal)
    table.row("from rename to event: maximum", events[2], " ms")
    table.row("CPU of the service", [phase.cpu_percent for phase in phases], " %")


def _measure_phase(bench: Bench, server: Server, job_ids: list[str], seconds: float) -> Phase:
    requests = [get(f"/api/jobs/{job_id}", bench.token) for job_id in job_ids]
    renamed_at: dict[int, tuple[str, float]] = {}
    stream = get("/api/events?status=rendering", bench.token)
    with (
        SseReaders(server.address, stream, 1) as readers,
        StatusReader(server, bench.token, MARKED_JOBS) as statuses,
    ):
        load_generator.until(lambda: readers.ready_count == 1, 30)
        cpu, started_at = server.cpu(), time.perf_counter()
        with probe_meanwhile(server.address, requests) as latencies:
            while (due := started_at + len(renamed_at) * CHANGE_INTERVAL_S) < started_at + seconds:
                time.sleep(max(due - time.perf_counter(), 0))
                job_id, number, at = bench.change()
                renamed_at[number] = (job_id, at)
        cpu_percent = 100 * (server.cpu() - cpu) / (time.perf_counter() - started_at)
        time.sleep(bench.where.max_age_s + SETTLE_S)
    return Phase(
        latencies.milliseconds,
        cpu_percent,
        statuses.delays(renamed_at),
        [_first_event(readers, number, max(renamed_at)) - at for number, (_, at) in renamed_at.items()],
        statuses.too_old(renamed_at, bench.where.max_age_s),
    )


def _first_event(readers: SseReaders, number: int, last: int) -> float:
    """Return when a change was in the stream, or a later one of the job that it was merged with."""
    numbers = range(number, last + 1, len(MARKED_JOBS))
    return min((readers.first[one] for one in numbers if one in readers.first), default=float("inf"))


def _complete(bench: Bench, server: Server, writers: FarmWriters) -> None:
    """Complete all jobs, then check the status and download the output of each."""
    writers.resume()
    time.sleep(SETTLE_S)
    records = writers.complete()
    renamed_last = time.perf_counter()
    table.row("records of the writers per second", [records / writers.seconds])
    incomplete = set(writers.job_ids)

    def all_completed() -> bool:
        for job_id in list(incomplete):
            job = orjson.loads(answer(server.address, get(f"/api/jobs/{job_id}", bench.token))[1])
            if job["status"] == "completed":
                incomplete.discard(job_id)
        return not incomplete

    load_generator.until(all_completed, 60)
    table.row("from the last job's end to all statuses completed", [time.perf_counter() - renamed_last], " s")
    wrong = sum(
        answer(server.address, get(f"/api/jobs/{job_id}/download", bench.token))
        != (200, farm_writers.output_of(job_id))
        for job_id in writers.job_ids
    )
    table.row("outputs that were not downloaded as written", [wrong], "", NONE)
    # FUSE cuts off a longer record, if it replaces another while that is opened, at the older size.
    unreadable_goal = NONE if bench.where.fuse_cache_s is None else None
    table.row(
        "reads of an unreadable record", [server.metric("records_unreadable_total")], "", unreadable_goal
    )
