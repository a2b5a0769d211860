"""Limit the log lines that requests cause, so that refused requests cannot fill a disk.

A few lines of each kind are written per second, and a few times as many of all kinds together. Faults,
refusals of a known token, and other refusals, which anyone can cause, have separate budgets, so that none
hides the others. Omitted lines are counted, and one line a second reports how many of which kind. Every
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
"""Maximum lines of one kind per interval."""
LINES_OF_ALL_KINDS: Final = 20
"""Maximum lines per interval of each budget: refusals without a token id, with one, and faults.

Faults are warnings and errors.
"""
LINES_OF_A_TOKEN: Final = 10
"""Maximum lines per interval of all refusals with the same token id."""
KINDS_NAMED: Final = 10
"""Maximum kinds that the line about omitted lines names; those with the most lines are named."""

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
    """A logging filter for a handler; thread-safe."""

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        later: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """`later` calls a function after the interval; by default a timer thread does."""
        super().__init__()
        self._clock = clock
        self._later = later or _after_interval
        self._lock = threading.Lock()
        self._ends_at = 0.0
        self._written: Counter[Kind] = Counter()
        self._of_all_kinds: Counter[str] = Counter()
        """Lines written in this interval, by budget."""
        self._of_tokens: Counter[object] = Counter()
        self._omitted: Counter[Kind] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written; count it if not."""
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
        """Log how many lines were omitted since the last report."""
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
    """Return the kind of a line that requests can cause in any number; None for other lines."""
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
    """Return the id of the refused token; None if it is not known, and for a fault."""
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
