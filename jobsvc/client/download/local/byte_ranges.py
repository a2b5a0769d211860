"""Keep the set of bytes of a file that are on disk, as intervals."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Interval: TypeAlias = tuple[int, int]
"""Offset of the first byte, and the offset behind the last one."""


class ByteRanges:
    """A set of byte offsets. Not thread-safe."""

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in intervals:
            self.add(start, stop)

    def __iter__(self) -> Iterator[Interval]:
        """Yield disjoint intervals that do not touch each other, in ascending order."""
        return zip(self._starts, self._stops, strict=True)

    @property
    def total(self) -> int:
        """Number of bytes."""
        return sum(self._stops) - sum(self._starts)

    @property
    def prefix(self) -> int:
        """Number of bytes from offset 0 on without a gap."""
        return self._stops[0] if self._starts and self._starts[0] == 0 else 0

    @property
    def end(self) -> int:
        """Offset behind the last byte; 0 if there is none."""
        return self._stops[-1] if self._stops else 0

    def add(self, start: int, stop: int) -> int:
        """Add an interval; return how many of its bytes were missing."""
        if start >= stop:
            return 0
        before = sum(after - at for at, after in self._overlapping(start, stop))
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        merged_start, merged_stop = start, stop
        if first < last:
            merged_start = min(start, self._starts[first])
            merged_stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [merged_start]
        self._stops[first:last] = [merged_stop]
        return stop - start - before

    def gaps(self, start: int, stop: int) -> Iterator[Interval]:
        """Yield the intervals between two offsets that are missing, in ascending order."""
        position = start
        for present, after in self._overlapping(start, stop):
            if position < present:
                yield position, present
            position = after
        if position < stop:
            yield position, stop

    def _overlapping(self, start: int, stop: int) -> list[Interval]:
        """Return the parts of intervals that are between two offsets."""
        first = bisect_right(self._stops, start)
        last = bisect_left(self._starts, stop)
        return [
            (max(self._starts[index], start), min(self._stops[index], stop)) for index in range(first, last)
        ]


def parse_intervals(value: object, size: int) -> list[Interval]:
    """Return intervals of a file of `size` bytes from a JSON value. Raises ValueError if it is none."""
    if not isinstance(value, list):
        raise ValueError("not a list of intervals")  # noqa: TRY004 - of a value of any type
    intervals: list[Interval] = []
    position = 0
    for item in value:
        if not isinstance(item, list) or [type(number) for number in item] != [int, int]:
            raise ValueError("not an interval")
        start, stop = item
        if not position <= start < stop <= size:
            raise ValueError("intervals overlap, or are outside the file")
        intervals.append((start, stop))
        position = stop
    return intervals
