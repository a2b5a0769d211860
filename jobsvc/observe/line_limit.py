"""Limits log lines that requests cause, so that nobody can fill a disk with refusals.

Of each kind some lines a second are written, and of all kinds together a few times as many. Faults, refusals
of a known token, and other refusals, which anyone can cause, have budgets of their own, so that none hides
the others. What is left out is counted, and one line a second says how many there were of which kind. Every
request is in the metrics.
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
"""Of refusals without a token's id, of those with one, and of faults, which are warnings and errors, each."""
LINES_OF_A_TOKEN: Final = 10
"""Of all kinds of refusals with this token's id."""
KINDS_NAMED: Final = 10
"""Kinds that the line about omitted ones names: those with the most."""

Kind: TypeAlias = tuple[tuple[str, object], ...]

_FAULTS: Final = "faults"
_OF_TOKENS: Final = "tokens"
_OTHERS: Final = "others"

_EVENTS: Final = frozenset({"refused", "request-failed"})
_LIBRARIES: Final = ("aiohttp.", "asyncio")
_FIELDS: Final = ("event", "status", "route", "code", "reason")
_TOKEN_ID: Final = "tokenId"  # noqa: S105 - a field's name

log = structlog.get_logger("jobsvc.log")


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
        self._of_all_kinds: Counter[str] = Counter()
        """Lines that were written of each budget."""
        self._of_tokens: Counter[object] = Counter()
        self._omitted: Counter[Kind] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is to be written."""
        kind = kind_of(record)
        if kind is None:
            return True
        token_id = _token_id(record)
        if token_id is not None:
            kind += ((_TOKEN_ID, token_id),)
        with self._lock:
            self._begin_interval()
            if self._take(kind, _budget(record, token_id), token_id):
                return True
            first = not self._omitted
            self._omitted[kind] += 1
        if first:
            self._later(self.report)
        return False

    def _take(self, kind: Kind, budget: str, token_id: object) -> bool:
        if self._written[kind] >= LINES_OF_A_KIND or self._of_all_kinds[budget] >= LINES_OF_ALL_KINDS:
            return False
        if token_id is not None and self._of_tokens[token_id] >= LINES_OF_A_TOKEN:
            return False
        self._written[kind] += 1
        self._of_all_kinds[budget] += 1
        self._of_tokens[token_id] += 1
        return True

    def report(self) -> None:
        """Log how many lines were left out since the last report."""
        with self._lock:
            omitted, self._omitted = self._omitted, Counter()
        if omitted:
            named = [{**dict(kind), "lines": count} for kind, count in omitted.most_common(KINDS_NAMED)]
            log.warning("log-lines-omitted", lines=omitted.total(), kinds=len(omitted), most=named)

    def _begin_interval(self) -> None:
        now = self._clock()
        if now >= self._ends_at:
            self._ends_at = now + INTERVAL_S
            self._written.clear()
            self._of_all_kinds.clear()
            self._of_tokens.clear()


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


def _token_id(record: logging.LogRecord) -> object:
    """Return the id of the token that was refused; None where none is known, and for a fault."""
    if record.levelno > logging.INFO or not isinstance(record.msg, dict):
        return None
    return record.msg.get(_TOKEN_ID)


def _budget(record: logging.LogRecord, token_id: object) -> str:
    if record.levelno > logging.INFO:
        return _FAULTS
    return _OTHERS if token_id is None else _OF_TOKENS


def _after_interval(report: Callable[[], None]) -> None:
    timer = threading.Timer(INTERVAL_S, report)
    timer.daemon = True
    timer.start()
