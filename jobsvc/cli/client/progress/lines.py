"""Show progress as plain lines, for logs: one every 10 %, at most one in 10 s, at least one a minute."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

import click

from jobsvc.cli.client.exit_codes import complain
from jobsvc.cli.client.progress.state import DownloadState
from jobsvc.client.models import Progress

MIN_INTERVAL_S: Final = 10.0
MAX_INTERVAL_S: Final = 60.0
"""Services that run pipelines end a command that prints nothing for some minutes."""
_STEP_PERCENT: Final = 10


class LineDisplay:
    """Writes lines to standard error, without escape sequences."""

    def __init__(self) -> None:
        self._state = DownloadState()
        self._shown_at = time.monotonic()
        self._shown: tuple[int, int, str] | None = None
        self._status = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def update(self, progress: Progress) -> None:
        """Write a line if it is time for one."""
        self._state.update(progress)
        now = time.monotonic()
        step = (progress.files_total, self._state.percent // _STEP_PERCENT, progress.phase)
        due = now - self._shown_at >= (MAX_INTERVAL_S if step == self._shown else MIN_INTERVAL_S)
        if due and progress.phase != "done":
            self._shown_at, self._shown = now, step
            self.final(self._line(progress))

    def status(self, text: str) -> None:
        """Write the text if it differs from the last one."""
        if text != self._status:
            self._status = text
            self.final(text)

    def result(self, line: bytes) -> None:
        """Write a line to standard output."""
        click.echo(line)

    def final(self, text: str) -> None:
        """Write a line to standard error."""
        click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Write a message to standard error."""
        complain(text)

    def _line(self, progress: Progress) -> str:
        state = self._state
        parts = (f"{state.percent} %", state.sizes, state.files, state.speed, state.time_left)
        text = ", ".join(part for part in parts if part)
        return f"{state.name}: {text}" if progress.files_total == 1 else text
