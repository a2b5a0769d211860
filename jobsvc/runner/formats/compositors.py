"""Parse the output of compositing programs: Nuke, Natron and Fusion. Pure."""

from __future__ import annotations

import re
from typing import Final

from jobsvc.runner.event import Event
from jobsvc.runner.formats import values

_NUKE_FRAME: Final = re.compile(r"Frame (-?\d{1,9}) \((\d{1,9}) of (\d{1,9})\)", re.ASCII)
_NUKE_PART: Final = re.compile(r"\s{0,4}(?:\.\d){0,8}\.([1-9])\.?\s{0,4}", re.ASCII)
_NUKE_VIEW: Final = re.compile(r'EXECUTING VIEW "([^"]{1,100})"')
_NUKE_ERRORS: Final = (
    "FOUNDRY LICENSE ERROR REPORT",
    "Worker process failed",
    "Node execution error:",
    " license key.",
)
_NATRON_FRAME: Final = re.compile(r"Frame rendered:\s{0,4}(-?\d{1,9})\b", re.ASCII)
_FUSION_FRAME: Final = re.compile(r"Rendered frame (-?\d{1,9}) \((\d{1,9}) of (\d{1,9})\)", re.ASCII)
_FUSION_RANGE: Final = re.compile(r"Render started at .{1,60}\(Range: (-?\d{1,9}) to (-?\d{1,9})\)", re.ASCII)


def parse_nuke(line: str) -> Event | None:
    """Parse a line of Nuke, which tells a frame when it is done: `Frame 12 (3 of 10)`."""
    if match := _NUKE_FRAME.match(line):
        return _counted(match)
    if line.startswith("Writing ") and " took " in line:
        return values.output(_strip_parts(line[len("Writing ") : line.rindex(" took ")]))
    if match := _NUKE_PART.fullmatch(line):
        return Event(part=int(match[1]) / 10, tells_frames=True)
    if line.startswith("Total render time:"):
        return Event(ended=True)
    return _parse_nuke_text(line)


def _parse_nuke_text(line: str) -> Event | None:
    if match := _NUKE_VIEW.search(line):
        return Event(phase=f"view {match[1]}")
    if any(text in line for text in _NUKE_ERRORS):
        return values.error(line)
    return values.common_error(line)


def parse_natron(line: str) -> Event | None:
    """Parse a line of Natron: `Frame rendered: 12`."""
    if match := _NATRON_FRAME.search(line):
        return Event(frame=int(match[1]), frame_done=True)
    return values.common_error(line)


def parse_fusion(line: str) -> Event | None:
    """Parse a line of Fusion: `Rendered frame 12 (3 of 10), took 0.24 secs`."""
    if match := _FUSION_FRAME.match(line):
        return _counted(match)
    if match := _FUSION_RANGE.match(line):
        return Event(first=int(match[1]), last=int(match[2]))
    if line.startswith("Render completed"):
        return Event(ended=True)
    return values.error(line) if line.startswith("Render failed") else values.common_error(line)


def _counted(match: re.Match[str]) -> Event | None:
    """Return the event of `frame (done of total)`; None if it counts past its total."""
    done, total = int(match[2]), int(match[3])
    return Event(frame=int(match[1]), frame_done=True, done=done, total=total) if done <= total else None


def _strip_parts(name: str) -> str:
    """Remove the parts of a frame, which Nuke may write behind a path: ` .1.2.3`."""
    before, space, last = name.rpartition(" ")
    return before if space and _NUKE_PART.fullmatch(last) else name
