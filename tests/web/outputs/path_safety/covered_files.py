"""Which files a path of a record covers, computed from real paths without the service's code."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

Output: TypeAlias = dict[str, str]
"""An entry of `outputs` in a record."""


class Covered(NamedTuple):
    """A file that a record covers."""

    output: str
    path: str
    """Relative to the output's directory."""
    file: Path


def is_usable(path: str) -> bool:
    """Return whether a list shows a file with this path: it has to be UTF-8 and without backslashes."""
    return "\\" not in path and path.encode("utf-8", "ignore").decode() == path


def is_plain_file(path: Path) -> bool:
    """Return whether there is a regular file at this very path, with no symbolic link on the way."""
    try:
        return stat.S_ISREG(path.lstat().st_mode) and os.path.realpath(path) == str(path)
    except (OSError, ValueError):
        return False


def files_below(folder: Path) -> Iterator[Path]:
    if os.path.realpath(folder) == str(folder):
        for parent, _, names in os.walk(folder):
            yield from filter(is_plain_file, (Path(parent, name) for name in names))


def pattern_of(name: str) -> Callable[[str], int | None] | None:
    """Return a function that parses the frame number of a name; None if the name has no placeholder."""
    found = re.findall(r"#+|@+|%0[1-9]d|%d|\$F[1-9]?", name)
    if len(found) != 1:
        return None
    before, after = name.split(found[0])
    width = len(found[0]) if found[0][0] in "#@" else int(re.sub(r"\D", "", found[0]) or 1)

    def parse(other: str) -> int | None:
        number = other.removeprefix(before).removesuffix(after)
        if before + number + after != other or not re.fullmatch("-?[0-9]{1,18}", number):
            return None
        frame = int(number)
        sign = "-" if number.startswith("-") else ""
        return frame if number in {f"{frame:0{width}d}", f"{sign}{abs(frame):0{width}d}"} else None

    return parse


def frames(output: Output, exact: Path) -> Iterator[Covered]:
    pattern, folder = pattern_of(exact.name), exact.parent
    if pattern is None or os.path.realpath(folder) != str(folder) or not folder.is_dir():
        return
    for file in folder.iterdir():
        frame = pattern(file.name)
        if frame is not None and _is_wanted(frame, output.get("frames")) and is_plain_file(file):
            yield Covered(output["name"], file.name, file)


def _is_wanted(frame: int, wanted: str | None) -> bool:
    match = re.fullmatch("(-?[0-9]+)(?:-(-?[0-9]+))?", wanted or "")
    return match is None or int(match[1]) <= frame <= int(match[2] or match[1])
