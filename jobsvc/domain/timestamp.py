"""Parse and format times (RFC 3339); store each as one integer from which its exact text can be rebuilt."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final, TypeAlias

Timestamp: TypeAlias = int | str
"""A time as it was written: microseconds since the epoch with the form of the text, or else the text."""

FIRST_TIME: Final = -62_135_596_800_000_000
LAST_TIME: Final = 253_402_300_799_999_999
"""Microseconds. RFC 3339 years have four digits; a file's time can be any 64-bit number of seconds."""

# RFC 3339, section 5.6, date-time; the offset is required, the separator and Z can be lower case.
_RFC3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d+))?([Zz]|[+-]\d{2}:[0-5]\d)", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_FORM_BITS: Final = 3
_FORM_MASK: Final = (1 << _FORM_BITS) - 1
_FORMS: Final = ((0, "Z"), (3, "Z"), (6, "Z"), (0, "+00:00"), (3, "+00:00"), (6, "+00:00"))
"""Digits of the fraction, and the offset, as programs write them; a Timestamp's form is an index."""
_FORM_OF_LENGTH: Final = {20: 0, 24: 1, 27: 2, 25: 3, 29: 4, 32: 5}
_MILLIS: Final = 1
_MINUTES: Final = tuple(f"{minute // 60:02}:{minute % 60:02}:" for minute in range(24 * 60))
_SECONDS: Final = tuple(f"{second:02}Z" for second in range(60))
_COMMON_LENGTH: Final = len("YYYY-MM-DDTHH:MM:SSZ")


def parse_time(text: str) -> int:
    """Convert an RFC 3339 date-time to microseconds since the epoch; raises ValueError if it is invalid.

    A leap second (RFC 3339, appendix D) is converted to the last microsecond before it.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:64]!r} is not an RFC 3339 date-time")
    date, clock, fraction, offset = match.groups()
    micros = (fraction or "")[:6].ljust(6, "0")
    if clock.endswith(":60"):
        clock, micros = clock[:-2] + "59", "999999"
    zone = "+00:00" if offset in {"Z", "z"} else offset
    moment = datetime.fromisoformat(f"{date}T{clock}.{micros}{zone}") - _EPOCH
    return (moment.days * 86_400 + moment.seconds) * 1_000_000 + moment.microseconds


def format_time(micros: int) -> str:
    """Format microseconds since the epoch (years 1 to 9999) as RFC 3339 in UTC, with milliseconds."""
    return format_timestamp(micros << _FORM_BITS | _MILLIS)


def normalize(text: str) -> str:
    """Return an RFC 3339 date-time with `T` and `Z`, which readers need; otherwise unchanged.

    They replace a space or a lower-case letter. Raises ValueError if the text is invalid.
    """
    if _parse_common(text) is not None:
        return text
    parse_time(text)
    return f"{text[:10]}T{text[11:].upper()}"


def parse_timestamp(text: str) -> Timestamp:
    """Parse an RFC 3339 date-time into a Timestamp; raises ValueError if it is invalid."""
    if (seconds := _parse_common(text)) is not None:
        return seconds * 1_000_000 << _FORM_BITS
    micros, text = parse_time(text), normalize(text)
    moment = micros << _FORM_BITS | _FORM_OF_LENGTH.get(len(text), 0)
    return moment if format_timestamp(moment) == text else text


def timestamp_at(micros: int) -> Timestamp:
    """Convert microseconds since the epoch to a Timestamp, limited to the years 1 to 9999."""
    return min(max(micros, FIRST_TIME), LAST_TIME) << _FORM_BITS | _MILLIS


def to_microseconds(moment: Timestamp) -> int:
    """Return microseconds since the epoch, as a sort key."""
    return moment >> _FORM_BITS if isinstance(moment, int) else parse_time(moment)


def format_timestamp(moment: Timestamp) -> str:
    """Return the text that the Timestamp was parsed from, as `normalize` returns it."""
    if isinstance(moment, str):
        return moment
    form, (seconds, micros) = moment & _FORM_MASK, divmod(moment >> _FORM_BITS, 1_000_000)
    days, seconds = divmod(seconds, 86_400)
    if not form:
        return f"{_day(days)}T{_MINUTES[seconds // 60]}{_SECONDS[seconds % 60]}"
    digits, offset = _FORMS[form]
    text = f"{_day(days)}T{_MINUTES[seconds // 60]}{seconds % 60:02}"
    return f"{text}.{f'{micros:06d}'[:digits]}{offset}" if digits else f"{text}{offset}"


def _parse_common(text: str) -> int | None:
    """Convert YYYY-MM-DDTHH:MM:SSZ, the most common form, to seconds since the epoch; None for other text.

    Faster than `parse_time`: there are four times in each of a million records.
    """
    if len(text) != _COMMON_LENGTH or text[4::3] != "--T::Z":
        return None
    try:
        moment = datetime.fromisoformat(text) - _EPOCH
    except ValueError:
        return None
    return moment.days * 86_400 + moment.seconds


@lru_cache(maxsize=4096)
def _day(days: int) -> str:
    """Format a day, counted from the epoch; cached, because a list page has two times of each job."""
    return date.fromordinal(_EPOCH.toordinal() + days).isoformat()
