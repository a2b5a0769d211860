"""No line makes a parser raise, or take long."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.runner.event import Event, Timecode
from jobsvc.runner.formats.auto import AUTO, parser_for
from jobsvc.runner.formats.table import FORMATS
from jobsvc.runner.frame_range import parse_frame_range
from jobsvc.runner.progress_tracker import ProgressTracker

LENGTH = 100_000
DEADLINE_S = 0.25
"""Processor time. It is 0.02 s and less; with a quadratic pattern it is several seconds."""

PIECES = [
    *(
        "Fra:",
        "Fra: 1 ",
        "| ",
        "Sample ",
        "3/4",
        "Tiles",
        "Rendered ",
        "Saved: ",
        "'",
        '"',
        "frame=",
        "time=",
        ":",
    ),
    *(
        "00:",
        "0:00:00:00",
        " (1): ",
        "PROGRESS: ",
        "Duration: ",
        "Frame ",
        "frame ",
        " of ",
        ".1",
        "Writing ",
        "took",
    ),
    *(
        "ALF_PROGRESS ",
        "%",
        "42",
        "R90000 ",
        "Block ",
        "rendered by GPU",
        "Image: ",
        "Error",
        ": ",
        "[",
        "]",
        "openjd_",
    ),
    *(
        "progress",
        "FRAME: ",
        "@IMAGE@",
        "Rendering ",
        "...",
        "done",
        "\x1b[0m",
        "\0",
        "\n",
        "٣",
        "\ud800",
        "-",
        "PDG_RESULT:;",
    ),
    *(
        "Frame Rate: ",
        "Progress for ",
        "File '",
        "Successfully written image file ",
        "mode = rgba",
        "99999999999",
    ),
]
LINES = st.one_of(
    st.text(),
    st.binary().map(lambda data: data.decode("utf-8", "replace")),
    st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=12).map("".join),
)


def check(event: Event) -> None:
    assert event.part is None or 0 <= event.part <= 1
    assert event.percent is None or 0 <= event.percent <= 100
    assert all(
        count is None or count >= 0 for count in (event.done, event.total, event.seconds, event.duration)
    )
    assert event.output is None or (event.output and event.output.isprintable())
    assert event.error != ""
    assert event != Event()


@pytest.mark.parametrize("name", FORMATS)
@given(line=LINES)
def test_no_text_makes_a_format_raise(name: str, line: str) -> None:
    event = FORMATS[name](line)
    if event is not None:
        check(event)


@given(lines=st.lists(LINES, max_size=20))
def test_no_text_makes_the_detector_or_the_tracker_raise(lines: list[str]) -> None:
    parse, tracker = parser_for(AUTO), ProgressTracker()
    for line in lines:
        event = parse(line)
        if event is not None:
            tracker.add(event)
    assert tracker.percent is None or 0 <= tracker.percent <= 99


NUMBERS = st.integers(-(10**9), 10**9)
COUNTS = st.integers(0, 10**9)
SECONDS = st.floats(0, 1e9)
EVENTS = st.builds(
    Event,
    frame=st.none() | st.integers(-3, 12) | NUMBERS,
    frame_started=st.booleans(),
    frame_done=st.booleans(),
    skipped=st.booleans(),
    part=st.none() | st.floats(0, 1),
    tells_frames=st.booleans(),
    percent=st.none() | st.floats(0, 100),
    done=st.none() | st.integers(0, 12) | COUNTS,
    total=st.none() | st.integers(0, 12) | COUNTS,
    first=st.none() | NUMBERS,
    last=st.none() | NUMBERS,
    seconds=st.none() | SECONDS,
    start=st.none() | SECONDS,
    duration=st.none() | SECONDS,
    timecode=st.none() | st.builds(Timecode, COUNTS, st.integers(0, 99), st.booleans()),
    frame_rate=st.none() | st.floats(0, 1e9),
    output=st.none() | st.text(min_size=1),
    phase=st.none() | st.text(),
    error=st.none() | st.text(),
    ended=st.booleans(),
)


@given(events=st.lists(EVENTS, max_size=20), frames=st.sampled_from([None, "7", "1-10", "-3-12x3"]))
def test_progress_never_falls_and_ends_only_when_finished(events: list[Event], frames: str | None) -> None:
    tracker = ProgressTracker(parse_frame_range(frames) if frames else None)
    percent, done = 0.0, 0
    for event in events:
        tracker.add(event)
        assert percent <= (tracker.percent or 0) <= 99
        percent = tracker.percent or 0
        if frames:
            assert tracker.frames_done is not None
            assert tracker.frames_total is not None
            assert done <= tracker.frames_done <= tracker.frames_total
            done = tracker.frames_done
    tracker.finish()
    assert tracker.percent == 100
    assert tracker.frames_done == tracker.frames_total or tracker.frames_total is None


def repeated(piece: str) -> str:
    return (piece * (LENGTH // len(piece) + 1))[:LENGTH]


HOSTILE: list[Callable[[str], str]] = [
    repeated,
    lambda piece: piece + " " * LENGTH,
    lambda piece: piece + "9" * LENGTH,
    lambda piece: piece + "a:" * (LENGTH // 2),
    lambda piece: piece + repeated("[a] "),
    lambda piece: " " * LENGTH + piece,
    lambda piece: repeated("'" + piece),
    lambda piece: repeated(piece + "1.1, "),
]


@pytest.mark.parametrize("make", HOSTILE)
def test_long_line_takes_linear_time(make: Callable[[str], str]) -> None:
    parsers = {**FORMATS, AUTO: parser_for(AUTO)}
    for line in map(make, PIECES):
        for name, parse in parsers.items():
            started = time.thread_time()
            parse(line)
            assert time.thread_time() - started < DEADLINE_S, (name, line[:40])
