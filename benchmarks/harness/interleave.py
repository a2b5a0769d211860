"""Interleaved measurements: every server is measured in each round, in alternating order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from benchmarks.harness.load_generator import Outcome


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often to measure, from the command line."""

    rounds: int
    quick: bool
    scratch: str | None = None
    """Directory to work in."""

    def pick(self, normal: float, quick: float) -> float:
        """Choose a duration or a size."""
        return quick if self.quick else normal


class Measured(Protocol):
    """A server that is measured."""

    @property
    def name(self) -> str:
        """Its name in tables."""

    def cpu(self) -> float:
        """Return the CPU seconds used so far."""


T = TypeVar("T", bound=Measured)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One server in one round."""

    outcome: Outcome
    cpu: float
    """Seconds that the server used."""

    @property
    def cpu_micros(self) -> float:
        """CPU microseconds of the server for one request."""
        return self.cpu / self.outcome.requests * 1e6

    @property
    def cpu_percent(self) -> float:
        """Return the percentage of a core that the server used: near 100 if it was the bottleneck."""
        return 100 * self.cpu / self.outcome.seconds

    @property
    def load_cpu_percent(self) -> float:
        """Percent of one core that the load used."""
        return 100 * self.outcome.cpu / self.outcome.seconds


def interleave(
    plan: Plan, servers: Sequence[T], measure: Callable[[T], Outcome], slices: int = 1
) -> dict[str, list[Measurement]]:
    """Measure each server once a round, after one run each that does not count.

    A round of several slices visits the servers that often: variations of the host's speed then affect all of
    them alike.
    """
    for server in servers:
        measure(server)
    results: dict[str, list[Measurement]] = {server.name: [] for server in servers}
    for _ in range(plan.rounds):
        outcomes, cpu = {server.name: Outcome() for server in servers}, dict.fromkeys(results, 0.0)
        for number in range(slices):
            for server in servers if number % 2 == 0 else servers[::-1]:
                before = server.cpu()
                outcomes[server.name].add(measure(server))
                cpu[server.name] += server.cpu() - before
        servers = servers[::-1]
        for name, outcome in outcomes.items():
            results[name].append(Measurement(outcome, cpu[name]))
    return results
