"""Show progress as one line on the terminal that is drawn again and again."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self

import click
from rich.cells import cell_len
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from jobsvc.cli.client.exit_codes import complain
from jobsvc.cli.client.progress.state import DownloadState
from jobsvc.cli.client.terminal import printable
from jobsvc.client.models import Progress

_INTERVAL_S: Final = 0.1
_MAX_BAR: Final = 30
_GOOD_BAR: Final = 12
"""A longer name is shortened before the bar is."""
_MIN_BAR: Final = 6
_MIN_NAME: Final = 8
_GAP: Final = 2
_CLEAR_LINE: Final = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))


class BarDisplay:
    """Draws a line with bar, rate and time left; its width is that of the terminal at each drawing."""

    def __init__(self) -> None:
        # Standard error is a terminal here, or JOBSVC_PROGRESS is `always`.
        self._console = Console(stderr=True, force_terminal=True, highlight=False)
        self._state = DownloadState()
        self._drawn_at: float | None = None
        self._status = ""

    def __enter__(self) -> Self:
        self._console.show_cursor(show=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clear()
        self._console.show_cursor()

    def update(self, progress: Progress) -> None:
        """Draw the line if it is time to; always for the last one."""
        self._state.update(progress)
        due = self._drawn_at is None or time.monotonic() - self._drawn_at >= _INTERVAL_S
        if due or progress.phase == "done":
            self._status = ""
            self._draw(bar_line(self._state, self._width, ascii_only=self._ascii_only))

    def status(self, text: str) -> None:
        """Draw the text."""
        if text != self._status or self._drawn_at is None:
            self._status = text
            line = Text(printable(text))
            line.truncate(self._width, overflow="ellipsis")
            self._draw(line)

    def result(self, line: bytes) -> None:
        """Write a line to standard output; if that is a terminal, remove the bar before."""
        if sys.stdout.isatty():
            self._clear()
        click.echo(line)

    def final(self, text: str) -> None:
        """Replace the bar with a line that stays."""
        self._clear()
        click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Remove the bar and write a message to standard error."""
        self._clear()
        complain(text)

    @property
    def _width(self) -> int:
        # A character in the last column would make the terminal wrap the line.
        return max(1, self._console.width - 1)

    @property
    def _ascii_only(self) -> bool:
        return not self._console.encoding.lower().startswith("utf")

    def _draw(self, line: Text) -> None:
        with self._console as console:  # one write, so that nothing flickers
            console.control(_CLEAR_LINE)
            console.print(line, end="", no_wrap=True, crop=True)
        self._drawn_at = time.monotonic()

    def _clear(self) -> None:
        if self._drawn_at is not None:
            self._console.control(_CLEAR_LINE)
            self._drawn_at = None


def bar_line(state: DownloadState, width: int, *, ascii_only: bool = False) -> Text:
    """Compose a line of at most `width` cells; a narrow one has fewer figures."""
    figures = _figures(state, width)
    remaining = width - len(figures) - _GAP
    room = remaining - _GAP  # of name and bar
    bar = min(_MAX_BAR, max(room - cell_len(state.name), _GOOD_BAR), room - _MIN_NAME)
    line = Text(no_wrap=True)
    if bar >= _MIN_BAR:
        line.append(_shortened(state.name, room - bar, ascii_only=ascii_only), "bold")
        line.append(" " * _GAP)
        line.append_text(_bar(state.fraction, bar, ascii_only=ascii_only))
        line.append(" " * _GAP)
    line.append(figures[:width])
    return line


def _figures(state: DownloadState, width: int) -> str:
    """Join the figures, without the least important ones if these leave no room for name and bar."""
    # Figures of a constant width, so that the bar does not move.
    percent, speed, time_left = f"{state.percent:3d} %", f"{state.speed:>10}", f"{state.time_left:>9}"
    choices = (
        (percent, state.sizes, state.files, speed, time_left),
        (percent, state.sizes, speed, time_left),
        (percent, speed, time_left),
        (percent, speed),
        (percent,),
    )
    texts = ["  ".join(part for part in parts if part) for parts in choices]
    room = width - 2 * _GAP - _MIN_NAME - _MIN_BAR
    return next((text for text in texts if len(text) <= room), texts[-1])


def _bar(fraction: float, width: int, *, ascii_only: bool) -> Text:
    filled = int(width * fraction)
    done, rest = ("#", "-") if ascii_only else ("━", "─")
    style = "green" if filled == width else "cyan"
    return Text.assemble((done * filled, style), (rest * (width - filled), "bright_black"))


def _shortened(name: str, width: int, *, ascii_only: bool) -> str:
    """Return the end of a name, which tells frames apart, in at most `width` cells."""
    if ascii_only:
        name = name.encode("ascii", "replace").decode()
    if cell_len(name) <= width:
        return name
    mark = "..." if ascii_only else "…"
    while name and cell_len(name) > width - len(mark):
        name = name[1:]
    return mark + name
