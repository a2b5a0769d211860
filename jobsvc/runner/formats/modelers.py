"""Parse the output of Cinema 4D, 3ds Max, LightWave and Clarisse, rendering from a command line. Pure."""

from __future__ import annotations

import re
from typing import Final

from jobsvc.runner.event import Event
from jobsvc.runner.formats import values
from jobsvc.runner.formats.protocols import parse_alf

_C4D_PROGRESS: Final = re.compile(rf"\bProgress:\s{{0,4}}({values.NUMBER})\s?%", re.ASCII)
_C4D_FRAME: Final = re.compile(r"\bRendering frame (-?\d{1,9})\b", re.ASCII)
_C4D_ERRORS: Final = ("Files cannot be written", "Error rendering project")

_MAX_FRAME: Final = re.compile(r"\bFrame (-?\d{1,9}) completed\b", re.ASCII)
_MAX_PROGRESS: Final = re.compile(rf"\bprogr:\s{{0,8}}({values.NUMBER})\s{{0,4}}%\s{{0,4}}rendered", re.ASCII)

_LIGHTWAVE_PROGRESS: Final = re.compile(r"Render Complete (\d{1,3})%", re.ASCII)
_LIGHTWAVE_FRAME: Final = re.compile(r"(Beginning|Finished) frame: (-?\d{1,9})\b", re.ASCII)
_LIGHTWAVE_WRITING: Final = re.compile(r"Writing \w{1,20} image to (.+)", re.ASCII)

_CLARISSE_PROGRESS: Final = re.compile(r":\s{0,4}(\d{1,3})\s?%", re.ASCII)


def parse_c4d(line: str) -> Event | None:
    """Parse a line of Cinema 4D: `Rendering frame 12`, `Progress: 42%`."""
    if match := _C4D_PROGRESS.search(line):
        return Event(part=values.part_of_percent(match[1]))
    if match := _C4D_FRAME.search(line):
        return Event(frame=int(match[1]))
    if event := parse_alf(line):
        return event
    if any(text in line for text in _C4D_ERRORS):
        return values.error(line)
    return values.common_error(line)


def parse_max(line: str) -> Event | None:
    """Parse a line of 3ds Max: `Frame 12 completed`, `progr: 42.0% rendered`."""
    if match := _MAX_FRAME.search(line):
        return Event(frame=int(match[1]), frame_done=True)
    if match := _MAX_PROGRESS.search(line):
        return Event(part=values.part_of_percent(match[1]), tells_frames=True)
    return values.error(line) if "Error occured while rendering" in line else values.common_error(line)


def parse_lightwave(line: str) -> Event | None:
    """Parse a line of LightWave: `Beginning frame: 5`, `Render Complete 42%`, `Finished frame: 5`."""
    if match := _LIGHTWAVE_PROGRESS.match(line):
        return Event(part=values.part_of_percent(match[1]))
    if match := _LIGHTWAVE_FRAME.match(line):
        return Event(frame=int(match[2]), frame_done=match[1] == "Finished")
    if match := _LIGHTWAVE_WRITING.match(line):
        return values.output(match[1])
    return values.common_error(line)


def parse_clarisse(line: str) -> Event | None:
    """Parse a line of Clarisse: `Progress for …: 42%`, `Saving Image:`, `File 'p'`."""
    if "Progress for " in line and (match := _CLARISSE_PROGRESS.search(line)):
        return Event(part=values.part_of_percent(match[1]), tells_frames=True)
    if "Saving Image:" in line:
        return Event(frame_done=True)
    text = line.strip()
    if text.startswith("File '") and text.endswith("'"):
        return values.output(text[len("File '") : -1])
    return values.common_error(line)
