"""Parse the frames to render: `1-250`, `7`, `-5-10`, `1,3,5-9`, `1-100x2`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MAX_FRAMES: Final = 1_000_000

_PART: Final = re.compile(
    r"(?P<first>-?[0-9]{1,9})(?:-(?P<last>-?[0-9]{1,9})(?:x(?P<step>[0-9]{1,9}))?)?", re.ASCII
)
_MAX_SHOWN: Final = 64


class FrameRange:
    """A set of frame numbers. Its length is the number of frames; iterating goes from low to high."""

    __slots__ = ("_count", "_ranges")

    def __init__(self, *ranges: range) -> None:
        """Use `parse_frame_range`. The ranges may overlap; none is empty."""
        self._ranges = ranges
        self._count = len(ranges[0]) if len(ranges) == 1 else len(set().union(*ranges))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, frame: object) -> bool:
        return isinstance(frame, int) and any(frame in frames for frames in self._ranges)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(set().union(*self._ranges)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrameRange) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash((self.first, self.last, self._count))

    def __repr__(self) -> str:
        return f"FrameRange({self.first} to {self.last}, {self._count} frames)"

    @property
    def first(self) -> int:
        """The lowest frame number."""
        return min(frames[0] for frames in self._ranges)

    @property
    def last(self) -> int:
        """The highest frame number."""
        return max(frames[-1] for frames in self._ranges)

    @property
    def is_contiguous(self) -> bool:
        """Whether all frames from the first to the last belong to it."""
        return self._count == self.last - self.first + 1


def parse_frame_range(text: str) -> FrameRange:
    """Parse numbers and ranges that are separated by commas. `x2` after a range is its step.

    Raises ValueError, whose message names what is wrong and the remedy.
    """
    ranges = [_parse_part(part.strip(), text) for part in text.split(",")]
    if sum(len(frames) for frames in ranges) > MAX_FRAMES:
        raise ValueError(f"{_shown(text)} has more than {MAX_FRAMES:,} frames: split the job")
    return FrameRange(*ranges)


def _parse_part(part: str, text: str) -> range:
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(f"{_shown(text)} is not a list of frames: write 7, 1-250, 1,3,5-9 or 1-100x2")
    first = int(match["first"])
    last = first if match["last"] is None else int(match["last"])
    step = int(match["step"] or 1)
    if last < first:
        raise ValueError(f"{part!r} ends before it starts: write {last}-{first}")
    if step == 0:
        raise ValueError(f"{part!r} has a step of 0: write 1 or more after the x")
    return range(first, last + 1, step)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…")
