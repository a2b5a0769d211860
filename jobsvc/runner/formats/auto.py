"""Find out which format a program prints, for `--format auto`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from jobsvc.runner.event import Event, Parse
from jobsvc.runner.formats.table import FORMATS, PROTOCOLS

AUTO: Final = "auto"

_CANDIDATES: Final = tuple(name for name in FORMATS if name not in {*PROTOCOLS, "c4d", "max", "generic"})
"""Formats that can be recognised. The lines of c4d and max look like those of any program."""
_LOOSE: Final = ("arnold", "nuke", "renderman")
"""Formats whose percentages look like those of any program."""
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]{0,32}[A-Za-z]")
"""Colours and other control sequences of terminals."""
_PERCENTAGES_TO_BELIEVE: Final = 3
"""So many percentages of an unknown program, none less than the one before, are taken for progress."""


def parser_for(format_name: str) -> Parse:
    """Return a parser for the lines of one program. `format_name` is "auto" or a key of FORMATS.

    It removes control sequences of terminals before it parses. Raises KeyError for an unknown name.
    """
    parse = FormatDetector().parse if format_name == AUTO else FORMATS[format_name]
    return lambda line: parse(_ESCAPES.sub("", line))


class FormatDetector:
    """Parses the lines of one program, and stays with the format that it recognises first.

    A format is recognised by a line that tells a frame, a number of frames, a duration or an output. Until
    then, all formats are tried on each line. Lines of the protocols are always read.
    """

    def __init__(self) -> None:
        self._format: str | None = None
        self._percentages = 0
        self._last_percentage = 0.0

    @property
    def format(self) -> str | None:
        """The name of the recognised format; None as long as there is none."""
        return self._format

    def parse(self, line: str) -> Event | None:
        """Parse the next line."""
        for name in PROTOCOLS:
            if event := FORMATS[name](line):
                return event
        if self._format is not None:
            return FORMATS[self._format](line)
        return self._parse_unrecognised(line)

    def _parse_unrecognised(self, line: str) -> Event | None:
        first: Event | None = None
        for name in _CANDIDATES:
            event = FORMATS[name](line)
            if event is None:
                continue
            if _is_strong(event):
                self._format = name
                return event
            if event.part is None or name not in _LOOSE:
                first = first or event
        return first or self._parse_generic(line)

    def _parse_generic(self, line: str) -> Event | None:
        event = FORMATS["generic"](line)
        if event is None or event.part is None:
            return event
        self._percentages = self._percentages + 1 if event.part >= self._last_percentage else 1
        self._last_percentage = event.part
        return event if self._percentages >= _PERCENTAGES_TO_BELIEVE else None


def _is_strong(event: Event) -> bool:
    """Return whether the event has more than what lines of many programs seem to tell."""
    weak = replace(event, part=None, percent=None, tells_frames=False, phase=None, error=None, ended=False)
    return weak != Event()
