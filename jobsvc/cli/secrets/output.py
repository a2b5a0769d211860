"""Durations as arguments, and lists as a table or as JSON lines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final

import click
import orjson

Value = str | list[str] | None

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"([0-9]{1,12})([smhdw])", re.ASCII)
_MAX_DURATION: Final = 100 * 366 * 86_400


class Duration(click.ParamType[float | None]):
    """Click type of a duration: 90d, 12h, 30m, and one word for a special one, such as never."""

    name = "duration"

    def __init__(self, word: str, meaning: float | None) -> None:
        """`meaning` is the value of the `word`."""
        self._word = word
        self._meaning = meaning

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Return seconds, or the meaning of the word."""
        if value == self._word:
            return self._meaning
        match = _DURATION.fullmatch(value)
        seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
        if not 0 < seconds <= _MAX_DURATION:
            self.fail(f"{value!r} is not a duration such as 90d, 12h or 30m, or {self._word}.", param, ctx)
        return seconds


def write_list(
    rows: Sequence[Mapping[str, Value]],
    columns: Mapping[str, str],
    empty: Mapping[str, str],
    *,
    as_json: bool,
) -> None:
    """Write a table of the `columns`, keys by title, or one JSON object a line.

    `empty` is what the table has for None, by key.
    """
    if as_json:
        for row in rows:
            click.echo(orjson.dumps(row))
        return
    cells = [[_cell(row[key], empty.get(key, "")) for key in columns.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in chain([list(columns)], cells):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Value, empty: str) -> str:
    if value is None:
        return empty
    return value if isinstance(value, str) else ",".join(value)
