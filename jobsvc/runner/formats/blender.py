"""Parse the output of Blender 2.4 to 5.x, with Cycles, EEVEE, Workbench and Blender Internal. Pure.

Until 4.5 a line begins with `Fra:1 Mem:…`. Since 5.0 it has a time and a component before it, and a space in
it: `00:04.230  render           | Fra: 1 | …`.
"""

from __future__ import annotations

import re
from typing import Final

from jobsvc.runner.event import Event
from jobsvc.runner.formats import values

_PREFIX: Final = re.compile(r"\d{2,4}:\d\d\.\d{3}\s{1,8}[\w.]{1,40}\s{0,40}\|\s{0,4}", re.ASCII)
_FRAME: Final = re.compile(r"Fra:\s?(-?\d{1,9})(?![\w.])", re.ASCII)
_TILES: Final = re.compile(
    r"\b(?:Rendered\s{1,4}|Path Tracing Tile\s{1,4}|Part\s{1,4})(\d{1,9})[/-](\d{1,9})\b(?!\ssamples)",
    re.ASCII,
)
_SAMPLES: Final = re.compile(
    r"\b(?:Sample\s{1,4}(\d{1,9})/(\d{1,9})|Rendering\s{1,4}(\d{1,9})\s?/\s?(\d{1,9})\ssamples)\b", re.ASCII
)
_ANIMATION: Final = re.compile(r"Rendering animation \(frames (-?\d{1,9})\.\.(-?\d{1,9})\)", re.ASCII)
_SINGLE: Final = re.compile(r"Rendering single frame \(frame (-?\d{1,9})\)", re.ASCII)
_BEGIN: Final = re.compile(r"Rendering frame (-?\d{1,9})\s{0,4}", re.ASCII)
_APPEND: Final = re.compile(r"append frame (-?\d{1,9})\b", re.ASCII | re.IGNORECASE)
_TIME: Final = re.compile(r"\s{0,4}Time:\s?\d{1,4}:\d\d", re.ASCII)
_SKIPPED: Final = "Skipping existing frame "
_SAVED: Final = "Saved:"
_PHASES: Final = (
    ("Compositing", "compositing"),
    ("Denois", "denoising"),
    ("Sync", "preparing"),
    ("Updating", "preparing"),
    ("Loading", "preparing"),
    ("Building", "preparing"),
    ("Preparing", "preparing"),
    ("Initializing", "preparing"),
)


def parse_blender(line: str) -> Event | None:
    """Parse one line."""
    prefix = _PREFIX.match(line)
    text = line[prefix.end() :] if prefix else line
    if match := _FRAME.match(text):
        return _parse_frame(int(match[1]), text)
    if text.startswith(_SAVED):
        # File Output nodes print this, too: the time ends a frame. Before 2.6 it is in the same line.
        return values.output(_saved_path(text), frame_done=" Time:" in text)
    if prefix and (match := _BEGIN.fullmatch(text)):
        return Event(frame=int(match[1]), phase="preparing")
    return _parse_once(text) or _parse_error(text)


def _parse_frame(frame: int, text: str) -> Event:
    part = _part(text)
    if part is not None:
        return Event(frame=frame, part=part, phase="rendering")
    return Event(frame=frame, phase=next((phase for word, phase in _PHASES if word in text), None))


def _part(text: str) -> float | None:
    """Return how much of the frame is done. The samples may be those of the next of several tiles."""
    samples, tiles = _SAMPLES.search(text), _TILES.search(text)
    sampled = values.ratio(samples[1] or samples[3], samples[2] or samples[4]) if samples else None
    if tiles is None or not int(tiles[2]):
        return sampled
    return min((int(tiles[1]) + (sampled or 0.0)) / int(tiles[2]), 1.0)


def _saved_path(text: str) -> str:
    name = text[len(_SAVED) :].strip()
    if name.startswith("'") and (end := name.rfind("'")) > 0:
        return name[1:end]
    return name.partition(" Time:")[0]


def _parse_once(text: str) -> Event | None:
    """Parse lines that come once a frame, or once a render."""
    if match := _ANIMATION.match(text):
        return Event(first=int(match[1]), last=int(match[2]))
    if match := _SINGLE.match(text):
        return Event(first=int(match[1]), last=int(match[1]))
    if match := _APPEND.match(text):
        return Event(frame=int(match[1]), frame_done=True)
    if _TIME.match(text):
        return Event(frame_done=True)
    if text.startswith(_SKIPPED):
        return Event(skipped=True, output=values.path(text[len(_SKIPPED) :]))
    return Event(ended=True) if text.strip() == "Blender quit" else None


def _parse_error(text: str) -> Event | None:
    if text.startswith(("ERROR ", "Render error", "Error:")):
        return values.error(text)
    return values.common_error(text)
