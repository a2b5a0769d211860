"""Prints figures: medians with their range, next to their goals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

_NAME: Final = 58
_VALUE: Final = 13


@dataclass(frozen=True, slots=True)
class Goal:
    """The goal of a figure: `at_least` or `at_most`; the other is None."""

    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, value: float) -> bool:
        """Return whether a figure meets the goal."""
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )

    def describe(self, value: float, unit: str) -> str:
        """Return the goal, and whether it is met."""
        sign, bound = (">=", self.at_least) if self.at_least is not None else ("<=", self.at_most)
        return f"goal {sign} {bound:g}{unit}: {'met' if self.is_met(value) else 'MISSED'}"


def row(name: str, values: Sequence[float], unit: str = "", goal: Goal | None = None) -> None:
    """Print one figure: the median of its rounds, and the range if there was more than one."""
    middle = median(values)
    spread = f"({format_number(min(values))}..{format_number(max(values))})" if len(values) > 1 else ""
    verdict = goal.describe(middle, unit) if goal is not None else ""
    print(
        f"  {name:<{_NAME}}{format_number(middle) + unit:>{_VALUE}}  {spread:<22} {verdict}".rstrip(),
        flush=True,
    )


def ratio(name: str, ours: Iterable[float], theirs: Iterable[float], goal: Goal | None = None) -> None:
    """Print the quotients of the rounds, ours over theirs."""
    row(name, [one / other for one, other in zip(ours, theirs, strict=True)], goal=goal)


def title(text: str) -> None:
    """Print the heading of a table."""
    print(f"\n{text}", flush=True)


def note(text: str) -> None:
    """Print a line that is not a figure."""
    print(f"  {text}", flush=True)


def format_number(value: float) -> str:
    """Format a figure with its significant digits."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
