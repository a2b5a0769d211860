"""The set of received bytes, compared with a set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.client.download.local.byte_ranges import ByteRanges, parse_intervals

INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)))


@given(INTERVALS, st.integers(0, 60), st.integers(0, 60))
def test_it_is_a_set_of_offsets(intervals: list[tuple[int, int]], start: int, stop: int) -> None:
    ranges, expected = ByteRanges(), set[int]()
    for first, last in intervals:
        added = ranges.add(first, last)
        assert added == len(set(range(first, last)) - expected)
        expected |= set(range(first, last))
    assert {offset for first, last in ranges for offset in range(first, last)} == expected
    assert ranges.total == len(expected)
    assert ranges.prefix == next(offset for offset in range(62) if offset not in expected)
    assert ranges.end == max(expected, default=-1) + 1
    gaps = list(ranges.gaps(start, stop))
    assert {offset for first, last in gaps for offset in range(first, last)} == set(
        range(start, stop)
    ) - expected


@given(INTERVALS)
def test_intervals_are_disjoint_and_do_not_touch(intervals: list[tuple[int, int]]) -> None:
    found = list(ByteRanges(intervals))
    assert all(first < last for first, last in found)
    assert all(found[index][1] < found[index + 1][0] for index in range(len(found) - 1))


@given(INTERVALS)
def test_intervals_survive_json(intervals: list[tuple[int, int]]) -> None:
    ranges = list(ByteRanges(intervals))
    assert parse_intervals([list(each) for each in ranges], 60) == ranges


@pytest.mark.parametrize(
    "value",
    [None, {}, [1], [[1]], [[1, 2, 3]], [[1, 1]], [[2, 1]], [[0, 61]], [[-1, 2]], [[0, 5], [4, 6]],
     [[5, 6], [0, 1]], [["0", 1]], [[0, 1.0]], [[False, True]]],
)  # fmt: skip
def test_other_values_are_no_intervals(value: object) -> None:
    with pytest.raises(ValueError, match="interval"):
        parse_intervals(value, 60)
