"""Format and parse HTTP-date (RFC 9110, section 5.6.7): one format when sent, exactly three when received.

A lenient parser would accept invalid text as a date, and so apply a precondition that has to be ignored.
Pure: the current time, needed for two-digit years, is passed in.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# Case sensitive and with exactly these spaces, as in the grammar; the calendar is checked afterwards.
_DAY_NAME: Final = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY_NAME: Final = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_CLOCK: Final = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"

_IMF_FIXDATE: Final = re.compile(
    f"{_DAY_NAME}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_CLOCK} GMT"
)
_RFC850_DATE: Final = re.compile(
    f"{_LONG_DAY_NAME}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_CLOCK} GMT"
)
_ASCTIME_DATE: Final = re.compile(
    f"{_DAY_NAME} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_CLOCK} (?P<year>[0-9]{{4}})"
)

_LEAP_SECOND: Final = (23, 59, 60)


@lru_cache(maxsize=1024)
def format_date(seconds: int) -> str:
    """Format whole seconds since the epoch as an IMF-fixdate; years 1 to 9999, in any locale."""
    parts = time.gmtime(seconds)
    return (
        f"{_DAYS[parts.tm_wday]}, {parts.tm_mday:02} {_MONTHS[parts.tm_mon - 1]} {parts.tm_year:04} "
        f"{parts.tm_hour:02}:{parts.tm_min:02}:{parts.tm_sec:02} GMT"
    )


def parse_date(text: str, now: float) -> int | None:
    """Parse an HTTP-date into whole seconds since the epoch; None if it or its calendar day is invalid.

    `now` is in seconds since the epoch. A wrong day name is accepted. A leap second counts as the second
    before it.
    """
    match = _IMF_FIXDATE.fullmatch(text) or _RFC850_DATE.fullmatch(text) or _ASCTIME_DATE.fullmatch(text)
    if match is None:
        return None
    month = _MONTHS.index(match["month"]) + 1
    clock = int(match["hour"]), int(match["minute"]), int(match["second"])
    if clock == _LEAP_SECOND:
        clock = (23, 59, 59)
    rest = (month, int(match["day"]), *clock)
    year = int(match["year"])
    if match.re is _RFC850_DATE:
        year = _full_year(year, rest, now)
    try:
        return int(datetime(year, *rest, tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _full_year(two_digits: int, rest: tuple[int, int, int, int, int], now: float) -> int:
    """Return the full year: in the latest century that puts the date at most 50 years after `now`."""
    today = datetime.fromtimestamp(now, UTC)
    latest = (today.year + 50, today.month, today.day, today.hour, today.minute, today.second)
    year = today.year - today.year % 100 + 100 + two_digits
    while (year, *rest) > latest:
        year -= 100
    return year
