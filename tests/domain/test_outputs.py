from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.outputs import FramePattern, Frames, frame_pattern, is_output_name, parse_frames


@pytest.mark.parametrize(
    ("name", "digits"),
    [
        ("beauty.####.exr", 4),
        ("beauty.@@@@.exr", 4),
        ("beauty.%04d.exr", 4),
        ("beauty.$F4.exr", 4),
        ("beauty.#.exr", 1),
        ("beauty.%d.exr", 1),
        ("beauty.$F.exr", 1),
    ],
)
def test_every_notation_of_a_frame_number_is_a_placeholder(name: str, digits: int) -> None:
    assert frame_pattern(name) == FramePattern("beauty.", digits, ".exr")


@pytest.mark.parametrize("name", ["beauty.exr", "100%.exr", "$f4.exr", "beauty.%4d.exr", ""])
def test_name_without_a_placeholder_has_no_pattern(name: str) -> None:
    assert frame_pattern(name) is None


@pytest.mark.parametrize("name", ["a.##.b.##", "%04d.####", "$F4-$F4", "#@"])
def test_two_placeholders_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has 2 placeholders"):
        frame_pattern(name)


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("a.0001.exr", 1),
        ("a.10000.exr", 10000),
        ("a.-0001.exr", -1),
        ("a.-001.exr", -1),
        ("a.001.exr", None),
        ("a.00001.exr", None),
        ("a.+001.exr", None),
        ("a.000a.exr", None),
        ("a.000\u0661.exr", None),
        ("a.0001.exr.tmp", None),
        ("a..exr", None),
        ("a.exr", None),
        ("a.-.exr", None),
        (f"a.{'1' * 19}.exr", None),
    ],
)
def test_number_of_a_frame_is_in_its_name(name: str, frame: int | None) -> None:
    assert FramePattern("a.", 4, ".exr").frame_of(name) == frame


@given(frame=st.integers(0, 10**9), digits=st.integers(1, 9))
def test_printed_frame_numbers_are_read_back(frame: int, digits: int) -> None:
    assert FramePattern("a.", digits, ".exr").frame_of(f"a.{frame:0{digits}d}.exr") == frame


@given(name=st.text(max_size=20))
def test_any_name_is_a_frame_or_none(name: str) -> None:
    frame = FramePattern("", 1, "").frame_of(name)
    assert (frame is not None) == bool(re.fullmatch(r"0|-?[1-9][0-9]{0,17}|-0", name))


@pytest.mark.parametrize(
    ("text", "frames"),
    [("1001-3000", (1001, 3000)), ("7", (7, 7)), ("-5-10", (-5, 10)), ("-10--5", (-10, -5)), ("0-0", (0, 0))],
)
def test_range_of_frames_is_parsed(text: str, frames: tuple[int, int]) -> None:
    assert parse_frames(text) == frames


@pytest.mark.parametrize(
    "text", ["", "-", "1-", "a-b", "1-2-3", "1..2", "2-1", "1,2", " 1-2", "1-9999999999", "1-\u0662"]
)
def test_text_that_is_no_range_of_frames_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not FIRST-LAST|ends before it starts"):
        parse_frames(text)


def test_range_contains_both_ends() -> None:
    assert [frame in Frames(2, 4) for frame in (1, 2, 4, 5)] == [False, True, True, False]
    frame: object = "3"
    assert frame not in Frames(2, 4)


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "0", "x" * 64])
def test_output_name_is_safe_in_a_url_and_as_a_directory(name: str) -> None:
    assert is_output_name(name)


@pytest.mark.parametrize("name", ["", ".a", "-a", "ä", "a/b", "a b", "a\n", "x" * 65])
def test_other_text_is_no_output_name(name: str) -> None:
    assert not is_output_name(name)
