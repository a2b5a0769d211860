"""Parse the output of ffmpeg: its status lines on standard error, and those of `-progress`. Pure."""

from __future__ import annotations

import re
from typing import Final

from jobsvc.runner.event import Event
from jobsvc.runner.formats import values

_CLOCK: Final = r"(-?\d{1,4}):(\d\d):(\d\d(?:\.\d{1,9})?)"
_KEY: Final = re.compile(
    r"(frame|out_time|out_time_us|out_time_ms|progress)=\s{0,20}(\S{1,40})\s{0,20}", re.ASCII
)
_CLOCK_ALONE: Final = re.compile(_CLOCK, re.ASCII)
_FRAME: Final = re.compile(r"frame=\s{0,20}(\d{1,9})\s", re.ASCII)
_TIME: Final = re.compile(rf"\btime=\s{{0,10}}{_CLOCK}", re.ASCII)
_DURATION: Final = re.compile(rf"\s{{0,20}}Duration:\s{{1,4}}{_CLOCK}[\s,]", re.ASCII)
_ERROR: Final = re.compile(
    r"(?:\[[^\[\]]{1,60}\]\s{1,4})?(?:Error|Unknown|Unable|Could not|Cannot)\s", re.ASCII
)
_ERROR_ENDS: Final = (
    ": No such file or directory",
    ": Permission denied",
    ": Invalid data found when processing input",
    ": Invalid argument",
    ": Input/output error",
    ": Is a directory",
    ": Protocol not found",
    ": Server returned 404 Not Found",
)
_NO_FILES: Final = ("pipe:", "-", "/dev/null", "NUL")


def parse_ffmpeg(line: str) -> Event | None:
    """Parse one line. The number of a frame is that of frames done so far."""
    if match := _KEY.fullmatch(line):
        return _parse_key(match[1], match[2])
    if line.startswith(("frame=", "size=", "Lsize=")):
        return _parse_status(line)
    if match := _DURATION.match(line):
        return _with(duration=values.clock(*match.groups()))
    return _parse_output(line) or _parse_error(line)


def _parse_key(key: str, text: str) -> Event | None:
    """Parse a line of `-progress`. Values that are not known are `N/A`."""
    if key == "progress":
        return Event(ended=True) if text == "end" else None
    if key == "frame":
        done = values.integer(text)
        return Event(done=done) if done is not None and done >= 0 else None
    if key == "out_time":
        match = _CLOCK_ALONE.fullmatch(text)
        return _with(seconds=values.clock(*match.groups())) if match else None
    microseconds = values.number(text)  # of out_time_ms, too
    return None if microseconds is None else Event(seconds=microseconds / 1e6)


def _parse_status(line: str) -> Event | None:
    frame, time = _FRAME.match(line), _TIME.search(line)
    done = values.integer(frame[1]) if frame else None
    return _with(done=done, seconds=values.clock(*time.groups()) if time else None)


def _with(
    *, done: int | None = None, seconds: float | None = None, duration: float | None = None
) -> Event | None:
    if done is None and seconds is None and duration is None:
        return None
    return Event(done=done, seconds=seconds, duration=duration)


def _parse_output(line: str) -> Event | None:
    """Parse `Output #0, mp4, to 'title.mp4':` and `[hls @ 0x…] Opening 'a.ts' for writing`."""
    text = line.rstrip()
    if text.startswith("Output #") and text.endswith("':") and ", to '" in text:
        name = text[text.index(", to '") + 6 : -2]
    elif text.endswith("' for writing") and "Opening '" in text:
        name = text[text.index("Opening '") + 9 : -len("' for writing")]
    else:
        return None
    return None if name.startswith(_NO_FILES[0]) or name in _NO_FILES else values.output(name)


def _parse_error(line: str) -> Event | None:
    """Find the reason of a failure. `Conversion failed!` follows it, and gives none."""
    if _ERROR.match(line) or line.rstrip().endswith(_ERROR_ENDS):
        return values.error(line)
    return values.common_error(line)
