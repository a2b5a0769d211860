"""Write results to standard output: JSON, and tables that fit the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import click

from jobsvc.cli.client.progress.units import format_duration
from jobsvc.cli.client.terminal import UNSAFE, has_colour, is_terminal, one_line, width_of
from jobsvc.client import Job

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
    can_shrink: bool = False
    """Whether the cells may be shortened to fit the terminal."""


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
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    # json.dumps escapes control characters below 0x20 only. The line feeds of `indent` stay.
    return "\n".join(UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line) for line in text.split("\n"))


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Write a table: on a terminal with colours and as wide as fits, otherwise plain and complete."""
    safe = [[one_line(cell) for cell in row] for row in rows]
    if is_terminal(sys.stdout):
        _write_fitting(columns, safe)
    else:
        _write_plain(columns, safe)


def _write_plain(columns: Sequence[Column], rows: list[list[str]]) -> None:
    rows = [[column.title for column in columns], *rows]
    widths = [max(map(width_of, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _write_fitting(columns: Sequence[Column], rows: list[list[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - takes 60 ms, and only terminals need it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.title, no_wrap=column.can_shrink, overflow="ellipsis" if column.can_shrink else "fold"
        )
    for row in rows:
        table.add_row(
            *(
                Text(cell, style=_COLOURS.get(cell, "") if column.is_status else "")
                for column, cell in zip(columns, row, strict=True)
            )
        )
    Console(file=sys.stdout, highlight=False, no_color=not has_colour(sys.stdout)).print(table)


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
