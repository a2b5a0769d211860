"""Convert the text that a pattern matched into values of an event; find lines that report errors. Pure.

Nothing here raises. Patterns of this package need time that is linear in the length of a line: they match
from its start or from a fixed word, and repetitions that can overlap are bounded.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Final

from jobsvc.runner.event import Event

NUMBER: Final = r"\d{1,9}(?:[.,]\d{1,9})?"
"""Pattern of a number that is not negative."""

_MAX_DIGITS: Final = 9
_MAX_NUMBER_LENGTH: Final = 32
_MAX_PATH_LENGTH: Final = 4096

_LABEL: Final = r"(?:\[[^\[\]]{0,60}\]\s{0,4}){0,3}\W{0,3}"
"""What precedes the word in many logs: a time, a component, an address."""
_ERROR: Final = re.compile(
    _LABEL + r"(?:(?:fatal|internal|render|license|licence|critical)\s{1,2}){0,2}"
    r"(?:error|fatal|critical|severe|[A-Z_a-z][\w.]{0,80}(?:Error|Exception))\b\W{0,3}[:\]|}]",
    re.ASCII | re.IGNORECASE,
)
_FAULTS: Final = (
    "segmentation fault",
    "out of memory",
    "cuda error",
    "failed to create file",
    "failed to write",
    "no licenses could be found",
    "please check for a valid license server",
    "license error",
    "illegal memory access",
    "no space left on device",
)
"""Parts of lines, in lower case, that report an error in any format."""


def integer(text: str | None) -> int | None:
    """Return a whole number of at most nine digits; None if it is not one."""
    if text is None:
        return None
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS else None


def number(text: str | None) -> float | None:
    """Return a finite number that is not negative, with a point or a comma; None if it is not one."""
    if text is None or len(text) > _MAX_NUMBER_LENGTH or text.startswith("-"):
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def part_of_percent(text: str | None) -> float | None:
    """Return a percentage as a part, 0 to 1; None if it is not a number."""
    value = number(text)
    return None if value is None else min(value, 100.0) / 100


def percent(text: str | None) -> float | None:
    """Return a percentage, 0 to 100; None if it is not a number."""
    value = number(text)
    return None if value is None else min(value, 100.0)


def ratio(done: str | None, total: str | None) -> float | None:
    """Return done/total, 0 to 1; None if they are not numbers, or the total is 0."""
    of_done, of_total = number(done), number(total)
    return min(of_done / of_total, 1.0) if of_done is not None and of_total else None


def clock(hours: str, minutes: str, seconds: str) -> float | None:
    """Return a time of the clock in seconds; None if it is negative."""
    values = number(hours), number(minutes), number(seconds)
    if values[0] is None or values[1] is None or values[2] is None:
        return None
    return values[0] * 3600 + values[1] * 60 + values[2]


def path(text: str) -> str | None:
    """Return a path without surrounding spaces and quotes; None if it can not be one."""
    text = text.strip().strip("'\"`").strip()
    return text if 0 < len(text) <= _MAX_PATH_LENGTH and text.isprintable() else None


def output(text: str, *, frame_done: bool = False) -> Event | None:
    """Return the event of a written file; None if the text can not be a path."""
    found = path(text)
    return None if found is None else Event(output=found, frame_done=frame_done)


def error(line: str) -> Event:
    """Return the event of a line that reports an error."""
    return Event(error=line.strip())


@lru_cache(maxsize=1)  # of a line of no known format many formats ask this: 1.5 times as many lines a second
def common_error(line: str) -> Event | None:
    """Return the event of a line that reports an error in a form that many programs share; else None."""
    if _ERROR.match(line.lstrip()):
        return error(line)
    lower = line.lower()
    return error(line) if any(fault in lower for fault in _FAULTS) else None
