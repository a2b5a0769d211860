"""Define what one line of a renderer's output says. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Timecode(NamedTuple):
    """A length of time in the notation H:MM:SS:FF of After Effects."""

    seconds: int
    """The hours, minutes and seconds, in seconds."""
    frames: int
    """The frames of the last second."""
    is_drop_frame: bool = False
    """Whether numbers are left out, so that the timecode follows the clock at 29.97 or 59.94 frames/s."""

    def frame_count(self, frame_rate: float) -> int:
        """Return the number of frames. `frame_rate` is in frames per second."""
        per_second = round(frame_rate)
        count = self.seconds * per_second + self.frames
        if self.is_drop_frame:
            minutes = self.seconds // 60
            count -= round(per_second / 15) * (minutes - minutes // 10)
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What one line says. A field is None or False if the line does not tell it."""

    frame: int | None = None
    """Number of the frame that is being rendered, or that is done if `frame_done`."""
    frame_started: bool = False
    """Another frame begins, whose number is not told."""
    frame_done: bool = False
    """The frame, or the current one if `frame` is None, is done. May be told several times."""
    skipped: bool = False
    """One more frame is done without being rendered, because its file exists."""
    part: float | None = None
    """How much of the current frame is done, 0 to 1. In a render of one frame this is the whole render."""
    tells_frames: bool = False
    """Other lines of this renderer tell when a frame is done, so that `part` is not of the whole render."""
    percent: float | None = None
    """How much of the whole render is done, 0 to 100."""
    done: int | None = None
    """Number of frames done so far."""
    total: int | None = None
    """Number of frames of the render."""
    first: int | None = None
    """Number of the first frame of the render."""
    last: int | None = None
    """Number of the last frame of the render."""
    seconds: float | None = None
    """Position in the movie that is being written, in seconds."""
    start: float | None = None
    """Position at which the movie starts, in seconds."""
    duration: float | None = None
    """Length of the movie, in seconds."""
    timecode: Timecode | None = None
    """Length of the movie, from which the frame rate gives the number of frames."""
    frame_rate: float | None = None
    """Frames per second."""
    output: str | None = None
    """Path of a file that is or was written, as the renderer tells it."""
    phase: str | None = None
    """What the renderer does now, for people."""
    error: str | None = None
    """The line, if it reports an error."""
    ended: bool = False
    """The renderer says that it has finished."""


Parse = Callable[[str], Event | None]
"""Returns what a line says, or None if it says nothing of interest. Never raises."""
