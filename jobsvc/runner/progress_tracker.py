"""Compute the progress of a render from the events of its lines.

Renderers tell it in many ways, and few tell all of it. The rules:

- With the number of frames known: (frames done + part of the current one) / frames.
- Else by position and duration, if the renderer tells them, as for a movie.
- Else a bar counts as the whole only as long as no line tells a frame and the bar has not returned to 0. If a
  line tells a frame, others may follow, so that 90 % of it says nothing about the whole.

The percentage never falls, and is at most 99 until `finish`.
"""

from __future__ import annotations

from typing import Final

from jobsvc.runner.event import Event, Timecode
from jobsvc.runner.frame_range import FrameRange

MAX_BEFORE_END: Final = 99.0
"""Percent."""
MAX_OUTPUTS: Final = 100_000
"""Paths that are kept."""
MAX_TEXT_LENGTH: Final = 1000
"""Characters of a phase or an error that are kept."""

_BAR_RESET: Final = 0.5
"""A bar that falls by more than this part has begun a new frame. Tiles may be told in another order."""


class ProgressTracker:
    """Takes events in the order of their lines. Only one thread may use it."""

    def __init__(self, frames: FrameRange | None = None) -> None:
        """`frames`: those to render, if known; they count more than what the renderer tells."""
        self._wanted = frames
        self._told_total: int | None = None
        self._clock = _Clock()
        self._counter = _FrameCounter()
        self._bar_returned = False
        self._percent: float | None = None
        self._is_finished = False
        self._outputs: dict[str, None] = {}
        self.phase: str | None = None
        """What the renderer does now."""
        self.error: str | None = None
        """The last line that reported an error."""
        self.ended = False
        """Whether the renderer has said that it has finished."""

    @property
    def percent(self) -> float | None:
        """How much is done, 0 to 100; None if it is not known."""
        return self._percent

    @property
    def frames_total(self) -> int | None:
        """Number of frames to render; None if it is not known."""
        if self._wanted is not None:
            return len(self._wanted)
        return self._told_total or self._clock.frame_count

    @property
    def frames_done(self) -> int | None:
        """Number of frames that are done, at most the total; None if nothing is known of frames."""
        total = self.frames_total
        if self._is_finished and total is not None:
            return total
        if not self._counter.is_counting and total is None:
            return None
        return self._counter.done if total is None else min(self._counter.done, total)

    @property
    def outputs(self) -> list[str]:
        """The paths of files that were written, each once, in the order of their lines."""
        return list(self._outputs)

    def add(self, event: Event) -> None:
        """Take what a line says."""
        self._clock.add(event)
        self._add_total(event)
        self._add_part(event)
        self._counter.add(event)
        self._add_texts(event)
        self._update_percent(event)

    def finish(self) -> None:
        """Take all of the render for done, because it has succeeded."""
        self._is_finished = True
        self._percent = 100.0

    def _add_total(self, event: Event) -> None:
        if event.total:
            self._told_total = event.total
        elif event.first is not None and event.last is not None and event.last >= event.first:
            self._told_total = event.last - event.first + 1

    def _add_part(self, event: Event) -> None:
        """Notice that a bar has begun again. If no line names frames, each round of it is one."""
        if event.part is None or self._counter.is_named or self._counter.part - event.part <= _BAR_RESET:
            return
        self._bar_returned = True
        total = self.frames_total
        if total is not None:
            self._counter.count_round(total)

    def _add_texts(self, event: Event) -> None:
        if event.output is not None and len(self._outputs) < MAX_OUTPUTS:
            self._outputs[event.output] = None
        if event.phase is not None:
            self.phase = event.phase[:MAX_TEXT_LENGTH]
        if event.error is not None:
            self.error = event.error[:MAX_TEXT_LENGTH]
        self.ended = self.ended or event.ended

    def _update_percent(self, event: Event) -> None:
        percents = (self._percent, event.percent, self._computed_percent())
        known = [percent for percent in percents if percent is not None]
        if known and not self._is_finished:
            self._percent = min(max(known), MAX_BEFORE_END)

    def _computed_percent(self) -> float | None:
        total, counter = self.frames_total, self._counter
        if total and counter.is_used:
            return 100 * (counter.done + counter.part) / total
        if self._clock.part is not None:
            return 100 * self._clock.part
        if counter.is_counting or self._bar_returned or not counter.is_used:
            return None
        return 100 * counter.part


class _FrameCounter:
    """Counts the frames that are done, and keeps the part of the current one."""

    def __init__(self) -> None:
        self.part = 0.0
        """How much of the current frame is done, 0 to 1."""
        self.is_used = False
        """Whether anything was told of frames or of a part."""
        self.is_counting = False
        """Whether anything was told of frames."""
        self.is_named = False
        """Whether lines tell where a frame begins or ends."""
        self._done_frames: set[int] = set()
        self._unnumbered = 0
        """Frames that are done and whose number was not told."""
        self._told = 0
        """The highest number of frames done that the renderer told."""
        self._current: int | None = None
        self._is_open = False
        """Whether a frame has begun, with or without a number."""

    @property
    def done(self) -> int:
        """Number of frames that are done."""
        return max(self._told, len(self._done_frames) + self._unnumbered)

    def add(self, event: Event) -> None:
        before = self.done
        if event.frame is not None or event.frame_started or event.frame_done or event.skipped:
            self.is_used = self.is_named = True
        self.is_named = self.is_named or event.tells_frames
        self.is_counting = self.is_counting or self.is_named or event.done is not None
        if event.frame is not None:
            self._add_numbered(event.frame, is_done=event.frame_done)
        elif event.frame_started:
            self._close()
            self._current, self._is_open = None, True
        elif event.frame_done:
            self._close_unnumbered()
        self._unnumbered += event.skipped
        if event.done is not None:
            self.is_used = True
            self._told = max(self._told, event.done)
        if event.ended:
            self._close()
        if self.done > before:
            self.part = 0.0
        if event.part is not None:
            self._add_part(event.part)

    def count_round(self, total: int) -> None:
        """Count a frame because its bar has begun again; the last one is done only at the end."""
        self._unnumbered += self.done < total - 1
        self.part = 0.0

    def _add_numbered(self, frame: int, *, is_done: bool) -> None:
        if is_done:
            self._done_frames.add(frame)
            self._is_open = self._is_open and frame != self._current
            return
        if frame != self._current:
            self._close()
            self.part = 0.0
        self._current = frame
        self._is_open = frame not in self._done_frames

    def _close_unnumbered(self) -> None:
        """End the current frame. If none has begun, it is the end of one only if no line tells beginnings."""
        if self._is_open:
            self._close()
        elif self._current is None and not self._done_frames:
            self._unnumbered += 1

    def _close(self) -> None:
        if self._is_open and self._current is not None:
            self._done_frames.add(self._current)
        elif self._is_open:
            self._unnumbered += 1
        self._is_open = False

    def _add_part(self, part: float) -> None:
        self.is_used = True
        if self._current is not None and not self._is_open:
            return  # of a frame that is done: passes that follow it
        self.part = max(self.part, part) if self.is_named else part


class _Clock:
    """Keeps position and duration of a movie."""

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._start = 0.0
        self._duration = 0.0
        """The longest one: several inputs are told one after another."""
        self._timecode: Timecode | None = None
        self._frame_rate: float | None = None

    @property
    def part(self) -> float | None:
        """How much of the movie is written, 0 to 1; None if it is not known."""
        if self._seconds is None or not self._duration:
            return None
        return min(max(self._seconds - self._start, 0.0) / self._duration, 1.0)

    @property
    def frame_count(self) -> int | None:
        """Number of frames by timecode and frame rate; None if they are not known."""
        if self._timecode is None or self._frame_rate is None:
            return None
        return self._timecode.frame_count(self._frame_rate) or None

    def add(self, event: Event) -> None:
        if event.seconds is not None:
            self._seconds = event.seconds
        if event.start is not None:
            self._start = event.start
        if event.duration is not None:
            self._duration = max(self._duration, event.duration)
        if event.timecode is not None:
            self._timecode = event.timecode
        if event.frame_rate is not None:
            self._frame_rate = event.frame_rate
