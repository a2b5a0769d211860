"""Parse the output of Houdini: hbatch, Mantra, Karma and husk. Pure."""

from __future__ import annotations

import re
from typing import Final

from jobsvc.runner.event import Event
from jobsvc.runner.formats import values
from jobsvc.runner.formats.protocols import parse_alf

_ABC: Final = re.compile(rf"\bABC_PROGRESS\s{{1,4}}({values.NUMBER})", re.ASCII)
_FRAME: Final = re.compile(r"\bRopNode\.render: frame (-?\d{1,9})\b", re.ASCII)
_GENERATING: Final = "Generating Image: "
_SIZE: Final = re.compile(r"\d{1,9}x\d{1,9}\)\s{0,4}", re.ASCII)
_HUSK_IMAGE: Final = re.compile(r"(?:\[[^\[\]]{0,60}\]\s{0,4})?(?:husk\s?:\s{0,4})?Image: (.+)")
_PDG: Final = "PDG_RESULT:"
_PDG_FIELDS: Final = 4
_ERRORS: Final = ("Error loading geometry ", "mantra: ERROR", "karma: ERROR", "No render ROP")


def parse_houdini(line: str) -> Event | None:
    """Parse one line. `ALF_PROGRESS` is printed if Alfred style progress is on."""
    if event := parse_alf(line):
        return event
    if match := _ABC.search(line):
        return Event(part=values.part_of_percent(match[1]))
    if match := _FRAME.search(line):
        return Event(frame=int(match[1]))
    if event := _parse_output(line):
        return event
    if any(text in line for text in _ERRORS):
        return values.error(line)
    return values.common_error(line)


def _parse_output(line: str) -> Event | None:
    if _GENERATING in line:
        name, bracket, size = line[line.index(_GENERATING) + len(_GENERATING) :].rpartition(" (")
        return values.output(name) if bracket and _SIZE.fullmatch(size) else None
    if match := _HUSK_IMAGE.match(line):
        return values.output(match[1])
    if _PDG in line:
        fields = line[line.index(_PDG) + len(_PDG) :].split(";")
        return values.output(fields[-3]) if len(fields) >= _PDG_FIELDS else None
    return None
