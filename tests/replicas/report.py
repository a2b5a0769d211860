"""Collects what a run finds: faults, which must not be, and figures."""

from __future__ import annotations

from collections import Counter
from typing import Final

_EXAMPLES: Final = 5


class Report:
    """Faults with examples, counts and figures of one run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.figures: dict[str, float] = {}
        self.examples: dict[str, list[str]] = {}
        self._faults: Counter[str] = Counter()

    def fault(self, kind: str, detail: object = "") -> None:
        """Record something that must not be."""
        self._faults[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(str(detail)[:500])

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] += number

    def highest(self, name: str, value: float) -> None:
        """Keep the highest value of a figure."""
        self.figures[name] = max(self.figures.get(name, value), value)

    @property
    def faults(self) -> dict[str, int]:
        return dict(self._faults)

    def __str__(self) -> str:
        """Return everything, one line each."""
        lines = [f"  {name}: {number:,}" for name, number in sorted(self.counts.items())]
        lines += [f"  {name}: {value:,.2f}" for name, value in sorted(self.figures.items())]
        for kind, number in self._faults.items():
            lines.append(f"  FAULT {kind}: {number:,}")
            lines += [f"    {example}" for example in self.examples[kind]]
        if not self._faults:
            lines.append("  no fault")
        return "\n".join(lines)
