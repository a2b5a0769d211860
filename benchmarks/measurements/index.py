"""Scale: the first index of 100,000 jobs, latency meanwhile, memory per job, delay of a change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks.harness import farm, host_info, table
from benchmarks.harness.interleave import Plan
from benchmarks.harness.latency_probe import percentile
from benchmarks.measurements.startup import Bench, IdleStart, LoadedStart

JOBS: Final = 100_000
MIX: Final = (("completed", 85.0), ("failed", 4.0), ("canceled", 1.0), ("rendering", 2.0), ("queued", 8.0))
"""One job in ten is unfinished: poll mode reads these again and again."""
CHANGES: Final = {"events": 200, "poll": 20}
"""Without events a change takes up to --max-age, a second, to be visible."""

GOALS: Final = {
    "first": table.Goal(at_most=1),
    "rate": table.Goal(at_least=20_000),
    "memory": table.Goal(at_most=1),
    "idle": table.Goal(at_most=10),
    "wait": table.Goal(at_most=100),
    "events": table.Goal(at_most=100),
    "poll": table.Goal(at_most=1100),
}
"""From rename to visible there is one for each mode."""


def run(plan: Plan) -> None:
    """Measure and print."""
    measure(plan, int(plan.pick(JOBS, 5000)), GOALS)


def measure(plan: Plan, jobs: int, goals: Mapping[str, table.Goal]) -> None:
    """Create a farm of this many jobs and print its figures, compared with these goals."""
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(farm.scratch("index", plan.scratch)), jobs, MIX)
        for mode in CHANGES:
            table.title(
                f"index: {jobs:,} jobs, {len(bench.unfinished):,} of them unfinished, --watch {mode}; "
                f"{host_info.describe_shared_placement()}; {host_info.load_average()}"
            )
            idle, loaded = [], []
            for _ in range(plan.rounds):
                idle.append(bench.idle_start(mode, plan.pick(10, 2)))
                loaded.append(bench.loaded_start(mode, int(plan.pick(CHANGES[mode], 10))))
            _print_idle_starts(idle, mode, goals)
            _print_loaded_starts(loaded, mode, goals)


def _print_idle_starts(rounds: Sequence[IdleStart], mode: str, goals: Mapping[str, table.Goal]) -> None:
    """Print the results of starts without requests."""

    def show(name: str, of: Callable[[IdleStart], float], unit: str, goal: str = "") -> None:
        table.row(name, [of(one) for one in rounds], unit, goals.get(goal))

    show("on an empty root, until it answers", lambda one: one.empty, " s")
    show("the first right answer for a job comes later by", lambda one: one.first, " s", "first")
    show("the first index", lambda one: one.rate, "/s", "rate")
    show("memory of a job", lambda one: one.memory, " kB", "memory")
    if mode == "events":
        show("memory of a job in the watcher's process", lambda one: one.watcher, " kB")
        show("from the index to the last watch", lambda one: one.watching, " s")
    show("of a core, when nothing happens", lambda one: one.idle, " %", "idle")


def _print_loaded_starts(rounds: Sequence[LoadedStart], mode: str, goals: Mapping[str, table.Goal]) -> None:
    """Print the results of starts with requests."""

    def show(name: str, of: Callable[[LoadedStart], float], unit: str, goal: str = "") -> None:
        table.row(name, [of(one) for one in rounds], unit, goals.get(goal))

    show("200 requests a second until all is indexed: p99", lambda one: one.latencies.p99, " ms", "wait")
    show("the longest of these", lambda one: one.latencies.worst, " ms")
    show("the first index during these requests", lambda one: one.rate, "/s")
    show("from rename to visible: median", lambda one: percentile(one.delays_ms, 50), " ms")
    show("from rename to visible: p95", lambda one: percentile(one.delays_ms, 95), " ms", mode)
