"""Where a renderer writes, and what becomes an output of the job.

A renderer writes into a directory of its attempt, `.render-1/`, from which complete files are renamed. What a
killed attempt has written is thus never taken for an output.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from jobsvc.farm import JobError, sync

_RESERVED: Final = ("status.json", "render.log")
"""Files of the job itself."""
_PREFIX: Final = ".render-"
_FRAME: Final = re.compile(r"(.*?)([0-9]+)([^0-9]*)", re.DOTALL)
"""The last number of a text."""
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)


class NamedOutput(NamedTuple):
    """An output for the record."""

    name: str
    path: str


def attempt_directory(job: Path, attempt: int, *, keep: bool = False) -> Path:
    """Create the directory of an attempt, and remove those of earlier ones.

    `keep`: go on with the files of the last one, except the newest, which may be incomplete.
    """
    folder = job / f"{_PREFIX}{attempt}"
    old = sorted(job.glob(f"{_PREFIX}*"), key=lambda each: each.stat().st_mtime_ns)
    if keep and old:
        old.pop().replace(folder)
        files = [folder / path for path in _files(folder)]
        if files:
            max(files, key=lambda file: file.stat().st_mtime_ns).unlink()
    for each in old:
        shutil.rmtree(each, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    return folder


def publish(folder: Path, job: Path) -> list[str]:
    """Rename all files of an attempt's directory into the job. Returns their paths in the job.

    Raises JobError for a file that would replace the record or the log of the job.
    """
    paths = sorted(_files(folder))
    if reserved := [path for path in paths if path in _RESERVED]:
        raise JobError(f"the renderer wrote {reserved[0]} beside the output: use --output output/NAME")
    for path in paths:
        sync(folder / path)
        (job / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).replace(job / path)
    shutil.rmtree(folder, ignore_errors=True)
    return paths


def count_files(folder: Path) -> int:
    """Return the number of files that a renderer has written so far."""
    return sum(1 for _ in _files(folder))


def paths_in_job(files: Iterable[str], folder: Path, job: Path) -> list[str]:
    """Return the paths of files that a renderer has named, as they are in the job after `publish`.

    Files that do not exist are left out. Raises JobError if one is outside of the job's directory.
    """
    paths = []
    for file in files:
        whole = Path(os.path.abspath(file))  # noqa: PTH100 - without following links
        if not whole.is_file():
            continue
        if not whole.is_relative_to(job):
            raise JobError(f"{file} is not in the directory of the job: write to {{output}} or below {{job}}")
        paths.append(str(whole.relative_to(folder if whole.is_relative_to(folder) else job)))
    return list(dict.fromkeys(paths))


def group_outputs(paths: Iterable[str]) -> list[NamedOutput]:
    """Return outputs for files: several that differ only in their last number are a sequence."""
    groups: dict[tuple[str, str, str], dict[str, str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        before, number, after = _split_at_number(name)
        groups.setdefault((folder, before, after), {})[path] = number
    outputs: dict[str, str] = {}
    for (folder, before, after), numbers in groups.items():
        path, text = next(iter(numbers)), before or folder
        if len(numbers) > 1:
            path = str(PurePosixPath(folder, f"{before}{_placeholder(numbers.values())}{after}"))
        else:
            text = PurePosixPath(path).stem
        outputs[_unused_name(text, outputs)] = path
    return [NamedOutput(name, path) for name, path in outputs.items()]


def _split_at_number(name: str) -> tuple[str, str, str]:
    """Return a file name before, in and after its last number; that of the extension does not count."""
    stem, dot, extension = name.rpartition(".")
    if not dot or extension.isdigit():
        stem, dot, extension = name, "", ""
    match = _FRAME.fullmatch(stem)
    before, number, after = match.groups() if match else (stem, "", "")
    return before, number, f"{after}{dot}{extension}"


def _placeholder(numbers: Collection[str]) -> str:
    """Return the placeholder for numbers: their digits, or one # if they are not padded."""
    widths = {len(number) for number in numbers}
    is_padded = len(widths) == 1 or any(number.startswith("0") for number in numbers)
    return "#" * min(widths) if is_padded else "#"


def _unused_name(text: str, names: Collection[str]) -> str:
    base = _NO_NAME.sub("-", text).strip("._-")[:60] or "output"
    candidates = (base, *(f"{base}-{number}" for number in range(2, len(names) + 2)))
    return next(name for name in candidates if name not in names)


def _files(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        yield from (str(Path(parent, name).relative_to(folder)) for name in names)
