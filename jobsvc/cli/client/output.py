"""Write results to standard output: JSON, and tables that fit the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from shutil import get_terminal_size
from typing import Final, NamedTuple

import click

from jobsvc.cli.client.progress.units import format_duration
from jobsvc.cli.client.terminal import UNSAFE, fit, has_colour, is_terminal, one_line, width_of
from jobsvc.client import Job
from jobsvc.client.errors import UnexpectedResponse

_GAP: Final = "  "
_MIN_WIDTH: Final = 10
_MIN_COLUMNS: Final = 2
_COLOURS: Final = {
    "queued": "yellow",
    "rendering": "cyan",
    "completed": "green",
    "failed": "red",
    "canceled": "magenta",
}


class Column(NamedTuple):
    """A column of a table."""

    title: str
    is_status: bool = False
    """Whether the cells are job states, which have colours."""
    is_number: bool = False
    """Whether the cells are aligned to the right."""
    can_shrink: bool = False
    """Whether the cells may be shortened to fit the terminal; only the last column."""


def write_json(value: object, *, indent: int | None = None) -> None:
    """Write a JSON value and a line feed; characters that a terminal interprets are escaped."""
    click.echo(json_text(value, indent=indent))


def write_json_array(values: Iterable[object]) -> None:
    """Write a JSON array, each value as soon as it is known."""
    separator = "[\n"
    for value in values:
        click.echo(separator + json_text(value), nl=False)
        separator = ",\n"
    click.echo("\n]" if separator != "[\n" else "[]")


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return JSON without characters that a terminal interprets, or that standard output cannot encode."""
    ascii_only = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") != "utf8"
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    except RecursionError as exc:
        raise UnexpectedResponse("The response is JSON that is nested too deeply.") from exc
    # json.dumps escapes control characters below 0x20 only. The line feeds of `indent` stay.
    return "\n".join(UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line) for line in text.split("\n"))


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Write a table: complete in a pipe, and on a terminal with colours and as wide as fits.

    A terminal that is too narrow for all columns gets those on the left, at least two.
    """
    lines = [[one_line(cell) for cell in row] for row in ([column.title for column in columns], *rows)]
    widths = [max(map(width_of, cells)) for cells in zip(*lines, strict=True)]
    if is_terminal(sys.stdout):
        widths = _fitting(columns, widths, get_terminal_size().columns)
    colours = has_colour(sys.stdout)
    for number, line in enumerate(lines):
        # Columns without a width are left out.
        cells = [
            _cell(column, cell, width, bold=number == 0, colours=colours)
            for column, cell, width in zip(columns, line, widths, strict=False)
        ]
        click.echo(_GAP.join(cells).rstrip())


def _fitting(columns: Sequence[Column], widths: list[int], available: int) -> list[int]:
    """Return the widths of the columns that a terminal has room for."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - available
    if excess <= 0:
        return widths
    if columns[-1].can_shrink and widths[-1] - excess >= _MIN_WIDTH:
        return [*widths[:-1], widths[-1] - excess]
    kept = widths[:-1]
    return _fitting(columns[:-1], kept, available) if len(kept) > _MIN_COLUMNS else kept


def _cell(column: Column, text: str, width: int, *, bold: bool, colours: bool) -> str:
    text = fit(text, width)
    padding = " " * (width - width_of(text))
    colour = _COLOURS.get(text) if column.is_status else None
    styled = click.style(text, fg=colour, bold=bold or None) if colours and (colour or bold) else text
    return padding + styled if column.is_number else styled + padding


def coloured(status: str, *, err: bool = False) -> str:
    """Return a job's state with its colour, if the stream is a terminal."""
    text = one_line(status)
    return click.style(text, fg=_COLOURS.get(text)) if has_colour(sys.stderr if err else sys.stdout) else text


def detail_of(job: Job) -> str:
    """Return the error of a job, or else what it is doing; empty if there is nothing to say."""
    if job.error:
        return one_line(job.error)
    done, total = job.document.get("framesDone"), job.document.get("framesTotal")
    parts = [
        "stalled" if job.stalled else "",
        _text(job.document.get("phase")) if not job.done else "",
        f"frame {_text(done)} of {_text(total)}"
        if total is not None and done is not None and not job.done
        else "",
    ]
    return ", ".join(filter(None, parts))


def percent(job: Job) -> str:
    """Return the progress, such as `42 %`."""
    return f"{job.progress:.0f} %"


def age(time: datetime) -> str:
    """Return how long ago a time is, such as `3 min 20 s ago`."""
    return f"{format_duration(max(0, int((datetime.now(UTC) - time).total_seconds())))} ago"


def _text(value: object) -> str:
    return "" if value is None else one_line(str(value))
