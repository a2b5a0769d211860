"""Decide where each file is written. Names of the service are not trusted: nothing is written elsewhere."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Final

from jobsvc.client.errors import DownloadError
from jobsvc.client.models import File

_RESERVED: Final = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³])[ ]*(?:\..*)?", re.IGNORECASE | re.DOTALL
)
"""Names of devices on Windows, with any extension."""
_NOT_ON_WINDOWS: Final = re.compile(r'[\x00-\x1f<>:"|?*]')


def targets_of(files: Sequence[File], to: str | os.PathLike[str]) -> list[Path]:
    """Return the target of each file, and create the directories.

    One file: `to`, or inside it if it is a directory or ends in a slash. Several: below `to`, as `path`, or
    as `output/path` if they are of several outputs. Raises DownloadError.
    """
    if len(files) == 1:
        (file,) = files
        return [single_target(to, safe_parts(file.path)[-1])]
    root = Path(to)
    with_output = len({file.output for file in files}) > 1
    relative = [safe_parts(f"{file.output}/{file.path}" if with_output else file.path) for file in files]
    make_directory(root)
    check_distinct(root, relative)
    make_parents(root, relative)
    return [root.joinpath(*parts) for parts in relative]


def make_parents(root: Path, relative: Iterable[tuple[str, ...]]) -> None:
    """Create the directories of files below `root`.

    Raises DownloadError, also if a symbolic link leads outside `root`.
    """
    real_root = Path(os.path.realpath(root))
    for parent in dict.fromkeys(parts[:-1] for parts in relative):
        make_directory(_inside(real_root, parent))


def single_target(to: str | os.PathLike[str], name: str) -> Path:
    """Return `to`, or `to/name` if `to` is a directory or ends in a slash; create the directory."""
    text = os.fspath(to)
    separators = tuple(filter(None, ("/", os.sep, os.altsep)))
    target = Path(text) / name if text.endswith(separators) or Path(text).is_dir() else Path(text)
    if not target.name or target.name == "..":
        raise DownloadError(f"{text!r} is not the name of a file.")
    make_directory(target.parent)
    return target


def make_directory(path: Path) -> None:
    """Create a directory and its parents. Raises DownloadError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DownloadError(f"The directory {path} cannot be created: {exc.strerror}.") from exc


def safe_parts(path: str, *, windows: bool = sys.platform == "win32") -> tuple[str, ...]:
    """Return the components of a path of the service.

    Raises DownloadError if it could lead outside the directory that it is relative to, or if it cannot be a
    name on this system.
    """
    parts = tuple(path.split("/"))
    for part in parts:
        reason = _why_unsafe(part) or (_why_not_on_windows(part) if windows else None)
        if reason is not None:
            raise DownloadError(f"The service has a file named {path!a}, which is not written: {reason}.")
    return parts


def check_distinct(root: Path, relative: Iterable[tuple[str, ...]]) -> None:
    """Raise DownloadError if two paths are one file on the file system of the directory `root`."""
    seen: dict[str, tuple[str, ...]] = {}
    directories: dict[str, tuple[str, ...]] = {}
    for parts in relative:
        for length in range(1, len(parts)):
            directories[folded(parts[:length])] = parts[:length]
        other = seen.setdefault(folded(parts), parts)
        if other is not parts and (other == parts or is_insensitive(root)):
            raise _one_file(other, parts)
    for key in seen.keys() & directories.keys():
        if seen[key] == directories[key] or is_insensitive(root):
            raise _one_file(seen[key], directories[key])


def _one_file(first: tuple[str, ...], second: tuple[str, ...]) -> DownloadError:
    return DownloadError(
        f"{'/'.join(first)} and {'/'.join(second)} would be the same file here: download them one at a time."
    )


def folded(parts: tuple[str, ...]) -> str:
    """Return a text that is the same for paths that may be one file where `is_insensitive`."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", "/".join(parts)).casefold())


def is_insensitive(root: Path) -> bool:
    """Return whether names that differ in case or in Unicode normalization are one file in a directory."""
    stem = f".jobsvc-{token_hex(8)}"
    probe = root / f"{stem}-a\u00e9"
    try:
        probe.touch(exist_ok=False)
    except OSError as exc:
        raise DownloadError(f"{root} cannot be written: {exc.strerror}.") from exc
    try:
        return any((root / f"{stem}-{name}").exists() for name in ("A\u00c9", "ae\u0301"))
    finally:
        probe.unlink(missing_ok=True)


def _why_unsafe(part: str) -> str | None:
    if part in {"", ".", ".."}:
        return "it has an empty component, or one of dots"
    if "\0" in part or "\\" in part or "/" in part:
        return "it has a forbidden character"
    try:
        os.fsencode(part)
    except UnicodeEncodeError:
        return "this system cannot represent it"
    return None


def _why_not_on_windows(part: str) -> str | None:
    if _NOT_ON_WINDOWS.search(part):
        return "it has a character that Windows does not allow"
    if part.endswith((".", " ")):
        return "it ends in a dot or a space"
    if _RESERVED.fullmatch(part):
        return "it is the name of a device on Windows"
    return None


def _inside(real_root: Path, parts: tuple[str, ...]) -> Path:
    """Return the real path of a directory below `real_root`. Raises DownloadError if a link leads outside."""
    path = Path(os.path.realpath(real_root.joinpath(*parts)))
    if not path.is_relative_to(real_root):
        raise DownloadError(f"{real_root.joinpath(*parts)} leads outside {real_root} by a symbolic link.")
    return path
