"""Limits log lines that requests cause, so that nobody can fill a disk with refusals.

Of each kind some lines a second are written, and of all kinds together a few times as many. Faults are
counted apart from refusals, which anyone can cause to hide them. What is left out is counted, and one line a
second says how many there were of which kind. Every request is in the metrics.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeAlias

import structlog

INTERVAL_S: Final = 1.0
LINES_OF_A_KIND: Final = 5
"""Lines that are written in an interval."""
LINES_OF_ALL_KINDS: Final = 20
"""Of refusals, which anyone can cause; of faults, logged as warnings and errors, as many."""
KINDS_NAMED: Final = 10
"""Kinds that the line about omitted ones names: those with the most."""

Kind: TypeAlias = tuple[tuple[str, object], ...]

_EVENTS: Final = frozenset({"refused", "request-failed"})
_LIBRARIES: Final = ("aiohttp.", "asyncio")
_FIELDS: Final = ("event", "status", "route", "code", "reason")

_log = structlog.get_logger("jobsvc.log")


class LineLimit(logging.Filter):
    """A filter of a handler. Any thread may log."""

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        later: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """`later` calls a function once the interval is over; by default a thread of its own does."""
        super().__init__()
        self._clock = clock
        self._later = later or _after_interval
        self._lock = threading.Lock()
        self._ends_at = 0.0
        self._written: Counter[Kind] = Counter()
        self._of_all_kinds: Counter[bool] = Counter()
        """Lines that were written of faults (True) and of refusals."""
        self._omitted: Counter[Kind] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be written."""
        kind = kind_of(record)
        if kind is None:
            return True
        fault = record.levelno > logging.INFO
        with self._lock:
            self._begin_interval()
            if self._written[kind] < LINES_OF_A_KIND and self._of_all_kinds[fault] < LINES_OF_ALL_KINDS:
                self._written[kind] += 1
                self._of_all_kinds[fault] += 1
                return True
            first = not self._omitted
            self._omitted[kind] += 1
        if first:
            self._later(self.report)
        return False

    def report(self) -> None:
        """Log how many lines were left out since the last report."""
        with self._lock:
            omitted, self._omitted = self._omitted, Counter()
        if omitted:
            named = [{**dict(kind), "lines": count} for kind, count in omitted.most_common(KINDS_NAMED)]
            _log.warning("log-lines-omitted", lines=omitted.total(), kinds=len(omitted), most=named)

    def _begin_interval(self) -> None:
        now = self._clock()
        if now >= self._ends_at:
            self._ends_at = now + INTERVAL_S
            self._written.clear()
            self._of_all_kinds.clear()


def kind_of(record: logging.LogRecord) -> Kind | None:
    """Name the kind of a line that requests can cause in any number; None for every other line."""
    event = record.msg
    if isinstance(event, dict):
        if event.get("event") not in _EVENTS:
            return None
        return tuple((field, event[field]) for field in _FIELDS if field in event)
    if record.name.startswith(_LIBRARIES):
        error = record.exc_info[0] if record.exc_info else None
        return ("logger", record.name), ("error", None if error is None else error.__name__)
    return None


def _after_interval(report: Callable[[], None]) -> None:
    timer = threading.Timer(INTERVAL_S, report)
    timer.daemon = True
    timer.start()
