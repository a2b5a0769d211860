"""Scale: the first index of 100,000 jobs, requests meanwhile, memory of a job, how soon a change shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks import farm, machine, table
from benchmarks.probe import percentile
from benchmarks.rounds import Plan
from benchmarks.starts import Asked, Bench, Quiet

JOBS: Final = 100_000
MIX: Final = (("completed", 85.0), ("failed", 4.0), ("canceled", 1.0), ("rendering", 2.0), ("queued", 8.0))
"""One job in ten is unfinished: poll mode looks at these again and again."""
CHANGES: Final = {"events": 200, "poll": 20}
"""Where nobody tells of a change it takes up to --max-age to show, a second."""

FIRST: Final = table.Goal(most=1)
RATE: Final = table.Goal(least=20_000)
MEMORY: Final = table.Goal(most=1)
WAIT: Final = table.Goal(most=100)
SOON: Final = {"events": table.Goal(most=100), "poll": table.Goal(most=1100)}
IDLE: Final = table.Goal(most=10)


def run(plan: Plan) -> None:
    """Measure and print."""
    jobs = int(plan.pick(JOBS, 5000))
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(farm.scratch("index", plan.scratch)), jobs, MIX)
        for mode in CHANGES:
            table.title(
                f"index: {jobs:,} jobs, {len(bench.unfinished):,} of them unfinished, --watch {mode}; "
                f"{placed()}; {machine.load_average()}"
            )
            quiet, asked = [], []
            for _ in range(plan.rounds):
                quiet.append(bench.quiet(mode, plan.pick(10, 2)))
                asked.append(bench.asked(mode, int(plan.pick(CHANGES[mode], 10))))
            show_quiet(quiet, mode)
            show_asked(asked, mode)


def placed() -> str:
    """Say where everything runs: what a service begins, its watcher, is held to its core as well."""
    return f"{machine.placed()}, its watcher there too"


def show_quiet(rounds: Sequence[Quiet], mode: str) -> None:
    """Print what starts came to while nobody asked."""

    def column(of: Callable[[Quiet], float]) -> list[float]:
        return [of(one) for one in rounds]

    table.row("on an empty root, until it answers", column(lambda one: one.empty), " s")
    table.row("the first right answer for a job comes later by", column(lambda one: one.first), " s", FIRST)
    table.row("the first index", column(lambda one: one.rate), "/s", RATE)
    table.row("memory of a job", column(lambda one: one.memory), " kB", MEMORY)
    if mode == "events":
        table.row("memory of a job in the watcher's process", column(lambda one: one.watcher), " kB")
        table.row("from the index to the last watch", column(lambda one: one.arming), " s")
    table.row("of a core, when all is quiet", column(lambda one: one.idle), " %", IDLE)


def show_asked(rounds: Sequence[Asked], mode: str) -> None:
    """Print what those felt who asked."""

    def column(of: Callable[[Asked], float]) -> list[float]:
        return [of(one) for one in rounds]

    table.row(
        "200 requests a second until all is indexed: p99", column(lambda one: one.loading.p99), " ms", WAIT
    )
    table.row("the longest of these", column(lambda one: one.loading.worst), " ms")
    table.row("the first index beside them", column(lambda one: one.rate), "/s")
    table.row("from rename to visible: median", column(lambda one: percentile(one.visible, 50)), " ms")
    p95 = column(lambda one: percentile(one.visible, 95))
    table.row("from rename to visible: p95", p95, " ms", SOON[mode])
