from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.runner.frame_range import FrameRange, parse_frame_range


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("7", [7]),
        ("-7", [-7]),
        ("1-3", [1, 2, 3]),
        ("-2-1", [-2, -1, 0, 1]),
        ("-3--1", [-3, -2, -1]),
        ("5-5", [5]),
        ("1,3,5-7", [1, 3, 5, 6, 7]),
        (" 1 , 3 ", [1, 3]),
        ("1-10x3", [1, 4, 7, 10]),
        ("1-9x3", [1, 4, 7]),
        ("5-7,1-6", [1, 2, 3, 4, 5, 6, 7]),
        ("0001-0003", [1, 2, 3]),
    ],
)
def test_frames(text: str, frames: list[int]) -> None:
    parsed = parse_frame_range(text)
    assert list(parsed) == frames
    assert len(parsed) == len(frames)
    assert [frame for frame in range(-20, 20) if frame in parsed] == frames
    assert (parsed.first, parsed.last) == (frames[0], frames[-1])
    assert parsed.is_contiguous == (len(frames) == frames[-1] - frames[0] + 1)


def test_what_is_no_number_is_no_frame() -> None:
    assert "1" not in parse_frame_range("1-3")


def test_equal_frames_are_equal() -> None:
    assert parse_frame_range("1-3") == parse_frame_range("3,1,2")
    assert hash(parse_frame_range("1-3")) == hash(parse_frame_range("3,1,2"))
    assert parse_frame_range("1-3") != parse_frame_range("1-4")
    assert parse_frame_range("1") != [1]
    assert repr(parse_frame_range("1-10x3")) == "FrameRange(1 to 10, 4 frames)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "1,",
        "a",
        "1-",
        "1--",
        "1..10",
        "1:10",
        "1 - 10",
        "3x2",
        "1-10x",
        "1-10x-2",
        "1.5",
        "٣",
        "1-2-3",
        "9" * 10,
    ],
)
def test_nonsense_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is not a list of frames: write 7, 1-250")):
        parse_frame_range(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10-1", "'10-1' ends before it starts: write 1-10"),
        ("1,5--5", "'5--5' ends before it starts: write -5-5"),
        ("1-10x0", "'1-10x0' has a step of 0: write 1 or more after the x"),
        ("1-1000001", "'1-1000001' has more than 1,000,000 frames: split the job"),
    ],
)
def test_wrong_ranges_are_refused_with_the_remedy(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_frame_range(text)


def test_long_nonsense_is_shortened_in_the_message() -> None:
    with pytest.raises(ValueError, match="a…") as caught:
        parse_frame_range("a" * 10_000)
    assert len(str(caught.value)) < 200


@given(st.text(alphabet="0123456789-x, ") | st.text())
def test_any_text_gives_frames_or_a_value_error(text: str) -> None:
    try:
        frames = parse_frame_range(text)
    except ValueError as exc:
        assert str(exc)  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(frames, FrameRange)
        assert 1 <= len(frames) <= 1_000_000
        assert frames.first in frames
