"""What a terminal can show: safe text, colours, width, and the form of progress."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from enum import Enum
from typing import Final, TextIO

# Control characters (C0, DEL, C1), changes of the direction of text, separators of lines, surrogates.
UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SPACE: Final = re.compile(r"\s+")


class ProgressForm(Enum):
    """How a command shows its progress on standard error."""

    LIVE = "live"
    """A line that is written again and again."""
    LINES = "lines"
    """A plain line for each change."""
    NONE = "none"


def progress_form() -> ProgressForm:
    """Return the form that JOBSVC_PROGRESS selects: `always`, `never`, or by the terminal (`auto`)."""
    match os.environ.get("JOBSVC_PROGRESS", "").strip().lower():
        case "never":
            return ProgressForm.NONE
        case "always":
            return ProgressForm.LIVE
    return ProgressForm.LIVE if is_terminal(sys.stderr) else ProgressForm.LINES


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal that can move its cursor."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour(stream: TextIO | None) -> bool:
    """Return whether colours may be written to a stream (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def printable(text: str) -> str:
    r"""Escape what a terminal would interpret: ESC becomes `\x1b`. Text from the service is not trusted."""
    return UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """Return a text as one printable line: each run of white space becomes one space."""
    return printable(_SPACE.sub(" ", text).strip())


def width_of(text: str) -> int:
    """Return the number of terminal columns of a printable text."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def fit(text: str, columns: int) -> str:
    """Return a printable text, shortened to a number of columns; then `…` is its last character."""
    if width_of(text) <= columns:
        return text
    kept, used = "", 1
    for character in text:
        used += _columns(character)
        if used > columns:
            break
        kept += character
    return f"{kept}…"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
