"""Parse lines of unknown programs: `frame 3 of 10`, `rendering frame 12`, `42%`. Pure."""

from __future__ import annotations

import re
from typing import Final

from jobsvc.runner.event import Event
from jobsvc.runner.formats import values
from jobsvc.runner.formats.protocols import parse_cgru

_COUNTED: Final = re.compile(
    r"\bframe\s{0,2}[:#]?\s{0,2}(\d{1,9})\s{0,2}(?:of|/)\s{0,2}(\d{1,9})(?![\d.%])", re.ASCII | re.IGNORECASE
)
_BEGUN: Final = re.compile(
    r"\b(?:rendering|starting|begin(?:ning)?)\sframe\s{0,2}[:#]?\s{0,2}(-?\d{1,9})\b",
    re.ASCII | re.IGNORECASE,
)
_FINISHED: Final = re.compile(
    r"\b(?:(?:rendered|finished|completed)\sframe\s{0,2}[:#]?\s{0,2}(-?\d{1,9})\b"
    r"|frame\s{0,2}[:#]?\s{0,2}(-?\d{1,9})\s(?:is\s)?(?:done|rendered|finished|completed?)\b)",
    re.ASCII | re.IGNORECASE,
)
_DONE: Final = re.compile(r"\b(?:rendered|finished|completed?|done|saved)\b", re.ASCII | re.IGNORECASE)
_PERCENT: Final = re.compile(r"(?<![\w.,%+-])(\d{1,3}(?:[.,]\d{1,6})?)\s{0,2}%(?![\w%])", re.ASCII)
_OF_OTHER_THINGS: Final = re.compile(
    r"\b(?:cpu|gpu|memory|mem|ram|vram|swap|disk|battery|usage|used|free|download\w{0,3}|upload\w{0,3}|cop(?:y|ying|ied)"
    r"|install\w{0,3}|quality|scale|zoom|opacity)\b",
    re.ASCII | re.IGNORECASE,
)


def parse_generic(line: str) -> Event | None:
    """Parse one line, also those of CGRU's generic parser."""
    return parse_cgru(line) or _parse_frame(line) or parse_percent(line) or values.common_error(line)


def parse_percent(line: str) -> Event | None:
    """Find the one percentage in a line, unless it is of something like memory or a download."""
    found = _PERCENT.findall(line)
    if len(found) != 1 or _OF_OTHER_THINGS.search(line):
        return None
    value = values.number(found[0])
    return None if value is None or value > 100 else Event(part=value / 100)  # noqa: PLR2004 - percent


def _parse_frame(line: str) -> Event | None:
    if match := _COUNTED.search(line):
        return _counted(int(match[1]), int(match[2]), is_done=bool(_DONE.search(line)))
    if match := _FINISHED.search(line):
        return Event(frame=values.integer(match[1] or match[2]), frame_done=True)
    if match := _BEGUN.search(line):
        return Event(frame=values.integer(match[1]))
    return None


def _counted(number: int, total: int, *, is_done: bool) -> Event | None:
    """Return the event of `frame 3 of 10`: the third is under way, unless the line says that it is done."""
    if not 1 <= number <= total:
        return None
    return Event(frame=number, frame_done=is_done, done=number if is_done else number - 1, total=total)
