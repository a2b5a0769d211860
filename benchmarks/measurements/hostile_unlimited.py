"""The benchmark `hostile` without budgets: no limit of a token is reached."""

from __future__ import annotations

from benchmarks.harness.interleave import Plan
from benchmarks.measurements import hostile


def run(plan: Plan) -> None:
    """Measure and print."""
    hostile.measure(plan, default_limits=False)
