from __future__ import annotations

import pytest

from jobsvc.runner.event import Parse
from jobsvc.runner.formats.auto import FormatDetector, parser_for
from jobsvc.runner.frame_range import parse_frame_range
from jobsvc.runner.progress_tracker import ProgressTracker
from tests.runner.transcripts import TRANSCRIPTS, Transcript


def follow(transcript: Transcript, parse: Parse) -> tuple[ProgressTracker, list[float | None]]:
    """Return the tracker after all lines, and the different percentages in their order."""
    tracker = ProgressTracker(parse_frame_range(transcript.wanted) if transcript.wanted else None)
    percents: list[float | None] = []
    for line in transcript.lines.splitlines():
        event = parse(line)
        if event is not None:
            tracker.add(event)
        percent = None if tracker.percent is None else round(tracker.percent, 1)
        if percent is not None and percent not in percents[-1:]:
            percents.append(percent)
    return tracker, percents


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_progress_frames_outputs_and_error_of_a_render(transcript: Transcript) -> None:
    tracker, percents = follow(transcript, parser_for(transcript.format))
    assert percents == transcript.percents
    assert (tracker.frames_done, tracker.frames_total) == transcript.frames
    assert tracker.outputs == transcript.outputs
    assert tracker.error == transcript.error


RECOGNISED = [transcript for transcript in TRANSCRIPTS if transcript.is_recognised]


@pytest.mark.parametrize("transcript", RECOGNISED, ids=lambda transcript: transcript.name)
def test_detector_comes_to_the_same_result(transcript: Transcript) -> None:
    detector = FormatDetector()
    tracker, _ = follow(transcript, detector.parse)
    expected, _ = follow(transcript, parser_for(transcript.format))
    assert detector.format == transcript.format
    assert (tracker.percent, tracker.frames_done, tracker.frames_total, tracker.outputs, tracker.error) == (
        expected.percent,
        expected.frames_done,
        expected.frames_total,
        expected.outputs,
        expected.error,
    )


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_detector_takes_no_line_for_another_format(transcript: Transcript) -> None:
    detector = FormatDetector()
    tracker, _ = follow(transcript, detector.parse)
    assert detector.format in {transcript.format, None}
    assert tracker.error == transcript.error
