r"""Read the user's own patterns, for `--regex FILE.toml`.

    patterns = [
      'Rendering frame (?P<frame>-?\d+)',
      'Tile (?P<part>\d+/\d+)',
      'ERROR: (?P<error>.+)',
    ]

Each pattern is searched for in each line; what all of them find makes one event.
"""

from __future__ import annotations

import re
import tomllib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from jobsvc.runner.event import Event, Parse
from jobsvc.runner.formats import values

MAX_LINE_LENGTH: Final = 4096
"""Only so many characters of a line are searched: a pattern can take time that grows with their square."""

_KEY: Final = "patterns"
_EXAMPLE: Final = "for example patterns = ['Frame (?P<frame>[0-9]+)']"


class RegexFileError(ValueError):
    """The file can not be used. The message names it, the key and the remedy."""


def _part(text: str) -> float | None:
    done, slash, total = text.partition("/")
    return values.ratio(done.strip(), total.strip()) if slash else values.part_of_percent(text)


def _count(text: str) -> int | None:
    value = values.integer(text)
    return value if value is not None and value >= 0 else None


GROUPS: Final[Mapping[str, Callable[[str], Any]]] = MappingProxyType(
    {
        "frame": values.integer,
        "part": _part,
        "percent": values.percent,
        "done": _count,
        "total": _count,
        "output": values.path,
        "phase": lambda text: text.strip() or None,
        "error": lambda text: text.strip() or None,
    }
)
"""The names of groups, and how their text becomes a value; None if it can not.

`part` is of the current frame: a percentage or `3/10`. `percent` is of the whole render.
"""


def load_regex_file(path: Path) -> Parse:
    """Read the file and return a parser that never raises. Raises RegexFileError."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise RegexFileError(f"{path} can not be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise RegexFileError(f"{path} is not UTF-8: save it in this encoding") from exc
    except (ValueError, RecursionError) as exc:
        raise RegexFileError(
            f"{path} is not valid TOML: {exc}; write patterns in single quotes, {_EXAMPLE}"
        ) from exc
    patterns = [
        _compile(pattern, f"{path}: {_KEY}[{index}]") for index, pattern in enumerate(_listed(table, path))
    ]

    def parse(line: str) -> Event | None:
        return _search(patterns, line[:MAX_LINE_LENGTH])

    return parse


def _listed(table: Mapping[str, object], path: Path) -> list[object]:
    if unknown := sorted(table.keys() - {_KEY}):
        raise RegexFileError(f"{path}: unknown key {unknown[0]!r}: the only key is {_KEY}, {_EXAMPLE}")
    patterns = table.get(_KEY)
    if not isinstance(patterns, list) or not patterns:
        raise RegexFileError(f"{path}: {_KEY} has to be a list of regular expressions, {_EXAMPLE}")
    return patterns


def _compile(pattern: object, where: str) -> re.Pattern[str]:
    if not isinstance(pattern, str):
        raise RegexFileError(f"{where} is not a string: write it in single quotes, {_EXAMPLE}")
    try:
        with warnings.catch_warnings(action="ignore"):
            compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as exc:
        raise RegexFileError(f"{where} is not a valid regular expression: {exc}; in {pattern!r}") from exc
    if unknown := sorted(compiled.groupindex.keys() - GROUPS.keys()):
        raise RegexFileError(f"{where}: unknown group {unknown[0]!r}: use {', '.join(GROUPS)}")
    if not compiled.groupindex:
        raise RegexFileError(f"{where} has no named group: add one of {', '.join(GROUPS)}, {_EXAMPLE}")
    return compiled


def _search(patterns: list[re.Pattern[str]], line: str) -> Event | None:
    found: dict[str, Any] = {}
    for pattern in patterns:
        if match := pattern.search(line):
            for name, text in match.groupdict().items():
                value = None if text is None else GROUPS[name](text)
                if value is not None:
                    found.setdefault(name, value)
    return Event(**found) if found else None
