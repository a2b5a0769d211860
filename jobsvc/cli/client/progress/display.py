"""Choose how progress is shown: JOBSVC_PROGRESS, and whether standard error is a terminal.

`auto` (the default): a live bar on a terminal, otherwise plain lines. `always`: a live bar in any case.
`never`: nothing but results and errors.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

import click

from jobsvc.cli.client.exit_codes import complain
from jobsvc.cli.client.progress.lines import LineDisplay
from jobsvc.cli.client.terminal import ProgressForm, progress_form
from jobsvc.client.models import Progress


class Display(Protocol):
    """Shows progress on standard error; leaving the context removes what is temporary."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def update(self, progress: Progress) -> None:
        """Show the progress of a download; can be called often."""

    def status(self, text: str) -> None:
        """Show what is waited for; the same text again shows nothing new."""

    def result(self, line: bytes) -> None:
        """Write a line to standard output, and leave the display intact if both are the same terminal."""

    def final(self, text: str) -> None:
        """Write a line to standard error that stays."""

    def warn(self, text: str) -> None:
        """Write a message to standard error that is shown in any case."""


def open_display(*, quiet: bool = False) -> Display:
    """Return the display for this environment; `quiet` is the same as `never`."""
    form = ProgressForm.NONE if quiet else progress_form()
    if form is ProgressForm.NONE:
        return SilentDisplay()
    if form is ProgressForm.LIVE:
        from jobsvc.cli.client.progress.bar import BarDisplay  # noqa: PLC0415 - rich takes 60 ms to import

        return BarDisplay()
    return LineDisplay()


class SilentDisplay:
    """Shows nothing but results."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def update(self, progress: Progress) -> None:
        """Show nothing."""

    def status(self, text: str) -> None:
        """Show nothing."""

    def result(self, line: bytes) -> None:
        """Write a line to standard output."""
        click.echo(line)

    def final(self, text: str) -> None:
        """Show nothing."""

    def warn(self, text: str) -> None:
        """Write a message to standard error."""
        complain(text)
