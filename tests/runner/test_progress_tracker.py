from __future__ import annotations

import pytest

from jobsvc.runner.event import Event, Timecode
from jobsvc.runner.frame_range import parse_frame_range
from jobsvc.runner.progress_tracker import ProgressTracker


def tracked(*events: Event, frames: str | None = None) -> ProgressTracker:
    tracker = ProgressTracker(parse_frame_range(frames) if frames else None)
    for event in events:
        tracker.add(event)
    return tracker


def percents(*events: Event, frames: str | None = None) -> list[float | None]:
    tracker = tracked(frames=frames)
    found = []
    for event in events:
        tracker.add(event)
        found.append(None if tracker.percent is None else round(tracker.percent, 1))
    return found


def bar(*parts: float) -> list[Event]:
    return [Event(part=part) for part in parts]


def test_nothing_is_known_at_first() -> None:
    tracker = tracked()
    assert (tracker.percent, tracker.frames_done, tracker.frames_total) == (None, None, None)
    assert (tracker.phase, tracker.error, tracker.outputs, tracker.ended) == (None, None, [], False)


def test_percent_is_frames_done_and_the_part_of_the_current_one() -> None:
    events = [Event(frame=1), Event(frame=1, part=0.5), Event(frame_done=True), Event(frame=2, part=0.5)]
    assert percents(*events, frames="1-4") == [0, 12.5, 25, 37.5]


def test_another_frame_ends_the_one_before() -> None:
    tracker = tracked(Event(frame=1, part=0.9), Event(frame=2), frames="1-4")
    assert (tracker.percent, tracker.frames_done) == (25, 1)


def test_frame_is_counted_once() -> None:
    done = Event(frame=1, frame_done=True)
    assert tracked(Event(frame=1), done, done, Event(frame_done=True), frames="1-4").frames_done == 1


def test_part_of_a_frame_that_is_done_is_ignored() -> None:
    events = [Event(frame=1, part=1.0), Event(frame_done=True), Event(frame=1, part=0.5)]
    assert percents(*events, frames="1-4") == [25, 25, 25]


def test_passes_of_one_frame_do_not_lower_its_part() -> None:
    events = [Event(frame=1, part=part) for part in (0.4, 0.9, 0.1, 0.5, 1.0)]
    assert percents(*events, frames="1-2") == [20, 45, 45, 45, 50]


def test_frames_that_are_done_in_another_order() -> None:
    events = [Event(frame=frame, frame_done=True) for frame in (2, 1, 4, 3)]
    assert percents(*events, frames="1-4") == [25, 50, 75, 99]


def test_frames_without_numbers() -> None:
    start, end = Event(frame_started=True), Event(frame_done=True)
    assert tracked(start, start, start, frames="1-4").frames_done == 2
    assert tracked(start, end, start, end, frames="1-4").frames_done == 2
    assert tracked(end, end, frames="1-4").frames_done == 2
    assert tracked(Event(frame=1), start, start, frames="1-4").frames_done == 2


def test_skipped_frames_are_done() -> None:
    tracker = tracked(Event(skipped=True), Event(skipped=True), Event(frame=3, part=0.5), frames="1-4")
    assert (tracker.percent, tracker.frames_done) == (62.5, 2)


def test_told_counts() -> None:
    tracker = tracked(Event(frame=12, frame_done=True, done=3, total=10), Event(part=0.5))
    assert (tracker.percent, tracker.frames_done, tracker.frames_total) == (35, 3, 10)


def test_told_first_and_last_frame_are_a_total() -> None:
    assert tracked(Event(first=11, last=20)).frames_total == 10
    assert tracked(Event(first=20, last=11)).frames_total is None


def test_wanted_frames_count_more_than_told_ones() -> None:
    tracker = tracked(Event(first=1, last=100), Event(frame=1), Event(frame=3), frames="1-100x2")
    assert (tracker.frames_total, tracker.percent) == (50, 2)


def test_more_frames_than_wanted() -> None:
    tracker = tracked(*(Event(frame=frame) for frame in range(20)), frames="1-4")
    assert (tracker.percent, tracker.frames_done, tracker.frames_total) == (99, 4, 4)


@pytest.mark.parametrize("frames", ["7", None])
def test_bar_of_a_single_frame_is_the_whole(frames: str | None) -> None:
    assert percents(*bar(0, 0.5, 0.8), frames=frames) == [0, 50, 80]


def test_part_of_a_named_frame_is_the_whole_if_it_is_the_only_one() -> None:
    assert percents(Event(frame=7, part=0.5), frames="7") == [50]
    assert percents(Event(first=7, last=7), Event(frame=7, part=0.5))[-1] == 50


def test_part_of_a_named_frame_says_nothing_if_others_may_follow() -> None:
    tracker = tracked(Event(frame=7, part=0.9), Event(frame=8, part=0.9))
    assert (tracker.percent, tracker.frames_done, tracker.frames_total) == (None, 1, None)


def test_each_round_of_a_bar_is_a_frame() -> None:
    events = bar(0, 0.5, 1, 0, 0.5, 1, 0, 0.5, 1)
    assert percents(*events, frames="1-5") == [0, 10, 20, 20, 30, 40, 40, 50, 60]
    assert tracked(*events, frames="1-5").frames_done == 2


def test_more_rounds_than_frames_do_not_end_the_render() -> None:
    tracker = tracked(*bar(0, 1, 0, 1, 0, 1, 0.2), frames="1-2")
    assert tracker.frames_done == 1
    assert tracker.percent == 99


def test_bar_that_returns_is_no_longer_the_whole() -> None:
    assert percents(*bar(0, 0.4, 0.7, 0, 0.9, 0.95)) == [0, 40, 70, 70, 70, 70]


def test_tiles_in_another_order_are_no_new_frame() -> None:
    assert percents(*bar(0.5, 0.6, 0.55, 0.7), frames="1-2") == [25, 30, 30, 35]


def test_percent_of_the_whole() -> None:
    assert percents(Event(percent=42), Event(percent=40), Event(percent=100)) == [42, 42, 99]
    assert percents(Event(percent=42), frames="1-10") == [42]


def test_movie_without_number_of_frames() -> None:
    events = [Event(duration=10), Event(done=50, seconds=2), Event(seconds=1), Event(seconds=20)]
    assert percents(*events) == [None, 20, 20, 99]
    assert tracked(*events).frames_done == 50


def test_count_without_a_total_is_no_percentage() -> None:
    assert percents(Event(done=0), Event(done=50, seconds=2)) == [None, None]


def test_longest_of_several_inputs_counts() -> None:
    assert percents(Event(duration=10), Event(duration=4), Event(seconds=5))[-1] == 50


def test_number_of_frames_of_a_timecode() -> None:
    header = [Event(start=5), Event(duration=10, timecode=Timecode(10, 10)), Event(frame_rate=25)]
    tracker = tracked(*header, Event(frame=1, frame_done=True, seconds=5))
    assert (tracker.frames_done, tracker.frames_total) == (1, 260)
    tracker = tracked(*header[:2], Event(frame=1, frame_done=True, seconds=7.5))
    assert (tracker.frames_total, tracker.percent) == (None, 25)


def test_audio_without_frames_goes_by_its_duration() -> None:
    assert percents(Event(duration=10), Event(seconds=5), frames="1-250")[-1] == 50


def test_end_of_the_renderer_is_at_most_99() -> None:
    tracker = tracked(Event(frame=1), Event(frame=2), Event(ended=True), frames="1-2")
    assert (tracker.ended, tracker.percent, tracker.frames_done) == (True, 99, 2)


def test_finish_is_100_and_all_frames() -> None:
    tracker = tracked(Event(frame=1), frames="1-4")
    tracker.finish()
    tracker.add(Event(frame=2))
    assert (tracker.percent, tracker.frames_done, tracker.frames_total) == (100, 4, 4)


def test_outputs_are_kept_once_in_their_order() -> None:
    events = [Event(output=path) for path in ("b", "a", "b")]
    assert tracked(*events).outputs == ["b", "a"]


def test_last_phase_and_error_are_kept_and_shortened() -> None:
    tracker = tracked(
        Event(phase="a"), Event(phase="b"), Event(error="c"), Event(error="d" * 5000), Event(frame=1)
    )
    assert tracker.phase == "b"
    assert tracker.error == "d" * 1000
