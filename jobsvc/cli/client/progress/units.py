"""Format sizes, rates and durations for people."""

from __future__ import annotations

from typing import Final

_STEP: Final = 1024
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


def format_size(size: float) -> str:
    """Format a number of bytes with three digits: `999 B`, `1.24 GiB`, `146 KiB`."""
    unit = 0
    while round(size) >= _STEP and unit < len(_UNITS) - 1:
        size /= _STEP
        unit += 1
    # 1,000 to 1,023 of a unit have four digits.
    digits = 0 if unit == 0 else max(0, 3 - len(str(int(size))))
    return f"{size:.{digits}f} {_UNITS[unit]}"


def format_rate(bytes_per_second: float) -> str:
    """Format a rate: `210 MiB/s`."""
    return f"{format_size(bytes_per_second)}/s"


def format_duration(seconds: float) -> str:
    """Format a duration with its two largest units: `0.3 s`, `42 s`, `3 min 20 s`, `2 h 5 min`, `1 d 4 h`."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{int(seconds)} s"  # noqa: PLR2004 - two digits
    whole = int(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def format_clock(seconds: float) -> str:
    """Format a duration in a fixed form: `0:04`, `3:20`, `2:05:00`, `1 d 04:10:00`."""
    minutes, second = divmod(int(seconds), _MINUTE)
    hours, minute = divmod(minutes, _MINUTE)
    if hours == 0:
        return f"{minute}:{second:02}"
    days, hour = divmod(hours, 24)
    return f"{days} d {hour:02}:{minute:02}:{second:02}" if days else f"{hour}:{minute:02}:{second:02}"
