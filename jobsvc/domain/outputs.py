"""Define the outputs of a job: single files, frame sequences and directories. Pure.

A sequence is named by a pattern in the last component of its path, for example `beauty.####.exr`. `####`,
`@@@@`, `%04d` and `$F4` all mean the frame number, padded with zeros to four digits.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

MAX_OUTPUTS: Final = 256
MAX_FILES: Final = 100_000
"""Maximum number of files that the outputs of a job have together."""
MAIN: Final = "main"
"""The name of the output at outputPath, unless `outputs` names it differently."""

NAME_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_NAME: Final = re.compile(NAME_PATTERN, re.ASCII)
_FRAMES: Final = re.compile(r"(-?[0-9]{1,9})(?:-(-?[0-9]{1,9}))?", re.ASCII)
_PLACEHOLDER: Final = re.compile(r"#+|@+|%(?:0([1-9]))?d|\$F([1-9])?", re.ASCII)


class Role(StrEnum):
    """What an output is for."""

    MAIN = "main"
    PREVIEW = "preview"
    THUMBNAIL = "thumbnail"
    DATA = "data"


class OutputKind(StrEnum):
    """What an output is on disk."""

    FILE = "file"
    SEQUENCE = "sequence"
    """The files of one directory whose names match a pattern."""
    DIRECTORY = "directory"
    """All files below a directory."""


class Frames(NamedTuple):
    """A range of frame numbers, both ends included."""

    first: int
    last: int

    def __contains__(self, frame: object) -> bool:
        return isinstance(frame, int) and self.first <= frame <= self.last


class Output(NamedTuple):
    """One output of a job, as its record names it."""

    name: str
    path: str
    """Relative to the job directory, or absolute; a directory's may end in a slash."""
    role: Role = Role.DATA
    frames: Frames | None = None
    """The frames that a sequence should have; None for all that are there."""


class FramePattern(NamedTuple):
    """The file name of a sequence: the text before and after the frame number, and its number of digits."""

    prefix: str
    digits: int
    suffix: str

    def frame_of(self, name: str, frames: Frames | None = None) -> int | None:
        """Return the number of the frame in a file with this name; None if the name does not match.

        None also if the number is outside `frames`.

        A number may have more digits than the pattern, but no more zeros. The sign of a negative number is
        an additional character (Blender: `-0001`) or replaces a zero (printf: `-001`).
        """
        start, stop = len(self.prefix), len(name) - len(self.suffix)
        number = name[start:stop]
        if start + len(number) != stop or not (name.startswith(self.prefix) and name.endswith(self.suffix)):
            return None
        digits = number.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > _MAX_DIGITS:
            return None
        if len(digits) > self.digits:
            is_padded = digits[0] != "0"
        else:
            is_padded = len(digits) == self.digits or len(number) == self.digits
        if not is_padded or (frames is not None and int(number) not in frames):
            return None
        return int(number)


_MAX_DIGITS: Final = 18
"""Longer numbers in file names are not frame numbers."""


@lru_cache(maxsize=1024)
def frame_pattern(name: str) -> FramePattern | None:
    """Parse the last component of a path; None if it has no placeholder.

    Raises ValueError if it has several.
    """
    found = list(_PLACEHOLDER.finditer(name))
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"has {len(found)} placeholders for the frame number; one is allowed")
    text, (printf, houdini) = found[0].group(), found[0].groups()
    digits = len(text) if text[0] in "#@" else int(printf or houdini or 1)
    return FramePattern(name[: found[0].start()], digits, name[found[0].end() :])


def sequence_pattern(name: str) -> FramePattern | None:
    """Return the pattern in the last component of a path; None if a sequence cannot have this name."""
    try:
        return frame_pattern(name)
    except ValueError:
        return None


def parse_frames(text: str) -> Frames:
    """Parse `1001-1100`, `-5-10` or `7`; raises ValueError."""
    match = _FRAMES.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:64]!r} is not FIRST-LAST, for example 1001-1100")
    first, last = int(match[1]), int(match[1] if match[2] is None else match[2])
    if first > last:
        raise ValueError(f"{text!r} ends before it starts")
    return Frames(first, last)


def is_output_name(name: str) -> bool:
    """Return whether an output can have this name."""
    return _NAME.fullmatch(name) is not None
