"""Parse the output of render engines: Arnold, RenderMan, V-Ray and Redshift. Pure.

They are run alone, or in Maya, Houdini and others. None tells how many frames there are.
"""

from __future__ import annotations

import re
from typing import Final

from jobsvc.runner.event import Event
from jobsvc.runner.formats import values

_LABEL: Final = r"(?:\[[^\[\]]{0,60}\]\s{0,4})?"

_MAYA_PROGRESS: Final = re.compile(rf"\[PROGRESS\]\s{{1,4}}({values.NUMBER})\s{{1,4}}percent", re.ASCII)
_ARNOLD_PROGRESS: Final = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,4})?)\s?% done\b", re.ASCII)
_ARNOLD_ERROR: Final = re.compile(
    r"\d\d:\d\d:\d\d\s{1,8}[\d.]{1,12}\s?[KMG]B\s{1,8}(?:ERROR|FATAL)\b", re.ASCII
)
_ARNOLD_FILE: Final = re.compile(r"\bwriting file [`'\"](.+)")

_RENDERMAN_PROGRESS: Final = re.compile(
    r"\s{0,8}(?:\{?[A-Z]\d{5}\}?:?\s{1,8})?(\d{1,3}(?:\.\d{1,4})?)\s?%\s{0,8}", re.ASCII
)
_RENDERMAN_ERRORS: Final = ("{SEVERE}", "{ERROR}", "{FATAL}")

_VRAY_IMAGE: Final = re.compile(
    rf"{_LABEL}Rendering image(?:\.\.\.|…)?\s?:\s{{0,8}}(?:({values.NUMBER})|(done))", re.ASCII
)
_VRAY_PHASE: Final = re.compile(
    rf"{_LABEL}((?:Building|Calculating|Computing|Prepass|Compiling) [\w ]{{1,40}}?)(?:\.\.\.|…)\s?:",
    re.ASCII,
)
_VRAY_FRAME: Final = re.compile(
    r"\b(?:Starting frame|begin scene preprocessing for frame) (-?\d{1,9})\b", re.ASCII
)
_VRAY_WRITTEN: Final = "Successfully written image file "

_REDSHIFT_LABEL: Final = re.compile(r"\s{0,12}(?:\w{1,12}\s?:\s{0,8})?\[Redshift\]\s{0,20}", re.ASCII)
_REDSHIFT_BLOCK: Final = re.compile(r"\bBlock\s{1,4}(\d{1,9})/(\d{1,9})\s", re.ASCII)
_REDSHIFT_FRAME: Final = re.compile(r"\bRendering\b[^.\n]{0,60}?\bframe (-?\d{1,9})\s?\.\.\.", re.ASCII)
_REDSHIFT_DONE: Final = re.compile(r"Frame\b(?:\s(-?\d{1,9})\b)?.{0,80}?\bdone\b", re.ASCII)
_REDSHIFT_ERRORS: Final = (
    "No devices found. Aborting rendering",
    "Rendering was internally aborted",
    "Bad node type found: ",
)


def parse_arnold(line: str) -> Event | None:
    """Parse a line of Arnold: `12:34:56      32MB   |   45% done - 23 rays/pixel`."""
    if match := _ARNOLD_PROGRESS.search(line) or _MAYA_PROGRESS.search(line):
        return Event(part=values.part_of_percent(match[1]))
    if match := _ARNOLD_FILE.search(line):
        return values.output(match[1])
    return values.error(line) if _ARNOLD_ERROR.match(line) else values.common_error(line)


def parse_renderman(line: str) -> Event | None:
    """Parse a line of RenderMan: `R90000  42%`. Its bar returns to 0 for each frame."""
    if match := _RENDERMAN_PROGRESS.fullmatch(line) or _MAYA_PROGRESS.search(line):
        return Event(part=values.part_of_percent(match[1]))
    if "mode = rgb" in line:
        quoted = line.split('"', 2)
        return values.output(quoted[1]) if len(quoted) == 3 else None  # noqa: PLR2004 - before, within, after
    if any(text in line for text in _RENDERMAN_ERRORS):
        return values.error(line)
    return values.common_error(line)


def parse_vray(line: str) -> Event | None:
    """Parse a line of V-Ray: `Rendering image...:  42.3% [...]`."""
    if match := _VRAY_IMAGE.match(line):
        return Event(part=1.0 if match[2] else values.part_of_percent(match[1]), phase="rendering")
    if match := _VRAY_FRAME.search(line):
        return Event(frame=int(match[1]))
    if _VRAY_WRITTEN in line:
        return values.output(line[line.index(_VRAY_WRITTEN) + len(_VRAY_WRITTEN) :])
    if match := _VRAY_PHASE.match(line):
        return Event(phase=match[1].lower())
    return _parse_maya_progress(line) or values.common_error(line)


def parse_redshift(line: str) -> Event | None:
    """Parse a line of Redshift: `[Redshift] Block 32/48 (7,4) rendered by GPU 0 in 2ms`."""
    label = _REDSHIFT_LABEL.match(line)
    text = line[label.end() :] if label else line
    if "rendered by GPU" in text and (match := _REDSHIFT_BLOCK.search(text)):
        part = values.ratio(match[1], match[2])
        return None if part is None else Event(part=part)
    if text.startswith("Saving: "):
        return values.output(text[len("Saving: ") :])
    if any(part in text for part in _REDSHIFT_ERRORS):
        return values.error(line)
    return _parse_redshift_frame(text) or _parse_maya_progress(line) or values.common_error(line)


def _parse_redshift_frame(text: str) -> Event | None:
    if match := _REDSHIFT_FRAME.search(text):
        return Event(frame=int(match[1]))
    if match := _REDSHIFT_DONE.match(text):
        return Event(frame=values.integer(match[1]), frame_done=True)
    return Event(skipped=True) if text.startswith("Skipping frame") else None


def _parse_maya_progress(line: str) -> Event | None:
    """Parse `[PROGRESS] 42 percent`, which Maya prints with any engine."""
    match = _MAYA_PROGRESS.search(line)
    return Event(part=values.part_of_percent(match[1])) if match else None
