"""Parse the lines by which scripts tell farm managers their progress. Pure.

They are unmistakable, so that they can be read beside those of any renderer.
"""

from __future__ import annotations

import re
from typing import Final

from jobsvc.runner.event import Event
from jobsvc.runner.formats import values

_OPENJD: Final = re.compile(r"openjd_(progress|status|fail):\s{0,4}(.*)", re.ASCII)
_ALF: Final = re.compile(rf"\b(?:ALF|TR)_PROGRESS\s{{1,4}}({values.NUMBER})", re.ASCII)
_EXIT_STATUS: Final = re.compile(r"\bTR_EXIT_STATUS\s{1,4}(-?\d{1,9})", re.ASCII)
_CGRU_PROGRESS: Final = re.compile(rf"\bPROGRESS:\s{{1,4}}({values.NUMBER})\s?%", re.ASCII)
_CGRU_FRAME: Final = re.compile(r"\bFRAME:\s(?:\s{0,3}(-?\d{1,9})\b)?", re.ASCII)
_ACTIVITY: Final = "ACTIVITY: "
_IMAGE: Final = "@IMAGE@"


def parse_openjd(line: str) -> Event | None:
    """Parse a line of Open Job Description: `openjd_progress: 42.0`, whose percentage is of the whole."""
    match = _OPENJD.match(line)
    if match is None:
        return None
    kind, text = match[1], match[2].strip()
    if kind == "progress":
        value = values.percent(text)
        return None if value is None else Event(percent=value)
    if not text:
        return None
    return Event(phase=text) if kind == "status" else Event(error=text)


def parse_alf(line: str) -> Event | None:
    """Parse a line of Alfred or Tractor: `ALF_PROGRESS 42%`. Its bar may return to 0 for each frame."""
    if match := _ALF.search(line):
        return Event(part=values.part_of_percent(match[1]))
    if match := _EXIT_STATUS.search(line):
        return Event(ended=True) if values.integer(match[1]) == 0 else values.error(line)
    return None


def parse_cgru(line: str) -> Event | None:
    """Parse a line of the generic parser of CGRU: `PROGRESS: 42%` of a frame, `FRAME: `, `@IMAGE@path`."""
    if match := _CGRU_PROGRESS.search(line):
        return Event(part=values.part_of_percent(match[1]))
    if match := _CGRU_FRAME.search(line):
        frame = values.integer(match[1])
        return Event(frame_started=True) if frame is None else Event(frame=frame)
    if _IMAGE in line:
        return values.output(line[line.index(_IMAGE) + len(_IMAGE) :])
    if line.startswith(_ACTIVITY) and line[len(_ACTIVITY) :].strip():
        return Event(phase=line[len(_ACTIVITY) :].strip())
    if "[ PARSER FINISHED SUCCESS ]" in line:
        return Event(ended=True)
    return values.error(line) if "[ PARSER ERROR ]" in line else None
