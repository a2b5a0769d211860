"""Scale: the benchmark `index` with 1,000,000 jobs, which take minutes to create; figures without goals."""

from __future__ import annotations

from benchmarks.harness.interleave import Plan
from benchmarks.measurements.index import measure


def run(plan: Plan) -> None:
    """Measure and print: one round, since each is long."""
    measure(Plan(1, plan.quick, plan.scratch), int(plan.pick(1_000_000, 20_000)), {})
