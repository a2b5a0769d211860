"""Explain to people why a path from a record cannot be served; `safe_open` decides, this only explains.

Checks one component after the other, as `safe_open` does, but by path, so that it may race with changes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from jobsvc.domain.outputs import frame_pattern
from jobsvc.storage.files.os_errors import describe
from jobsvc.storage.files.safe_open import FILE_FLAGS
from jobsvc.storage.files.users import user_name
from jobsvc.storage.layout import MAX_PATH_DEPTH, MAX_PATH_LENGTH, beneath, components

MISSING: Final = "is missing"
IS_DIRECTORY: Final = "is a directory"

_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def explain(folder: Path, path: str, output_roots: Sequence[str] = ()) -> str | None:
    """Return what is wrong with a path from a record, as a predicate; None if nothing is.

    `folder` is the job directory.
    """
    problem = _explain_text(path)
    if problem is not None:
        return problem
    if not path.startswith("/"):
        return _walk(folder, components(path) or ())
    for root in output_roots:
        if names := beneath(root, path):
            return _walk(Path(root), names)
    return (
        "is outside every output root" if output_roots else "is absolute, but no --output-root is configured"
    )


def explain_output(folder: Path, path: str, output_roots: Sequence[str] = ()) -> str | None:
    """Return what is wrong with the path of an output: a file, a directory or the pattern of a sequence."""
    problem = explain(folder, path, output_roots)
    if problem == IS_DIRECTORY:
        return None
    if path.endswith("/"):
        return problem or "is not a directory"
    if problem != MISSING:
        return problem
    try:
        pattern = frame_pattern(path.rpartition("/")[2])
    except ValueError as error:
        return str(error)
    return (
        MISSING if pattern is None else _explain_frames(folder, path.rpartition("/")[0], path, output_roots)
    )


def _explain_frames(folder: Path, parent: str, path: str, output_roots: Sequence[str]) -> str | None:
    """Return what is wrong with the directory of a sequence."""
    if not components(parent) or (path.startswith("/") and os.path.normpath(parent) in output_roots):
        return None
    problem = explain(folder, parent, output_roots)
    return None if problem == IS_DIRECTORY else f"leads through {parent!r}, which {problem or 'is a file'}"


def _explain_text(path: str) -> str | None:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if not path:
        return "is empty"
    if "\0" in path:
        return "contains a NUL character"
    if ".." in parts:
        return "contains '..'"
    if not parts:
        return "contains no name"
    if len(path) > MAX_PATH_LENGTH or len(parts) > MAX_PATH_DEPTH:
        return f"is longer than {MAX_PATH_LENGTH} characters or {MAX_PATH_DEPTH} components"
    return None


def _walk(folder: Path, names: Sequence[str]) -> str | None:
    for number in range(1, len(names) + 1):
        last = number == len(names)
        here = folder.joinpath(*names[:number])
        try:
            mode = here.lstat().st_mode
            problem = _explain_file(here, mode) if last else _explain_directory(mode)
        except FileNotFoundError:
            return MISSING
        except OSError as error:
            return f"cannot be read: {describe(error)}{_permissions(here, error)}"
        if problem is not None:
            return problem if last else f"leads through {'/'.join(names[:number])!r}, which {problem}"
    return None


def _permissions(path: Path, error: OSError) -> str:
    """Return mode and owner of a path that cannot be read, or of its directory; empty for other errors."""
    if isinstance(error, PermissionError):
        for denied in (path, path.parent):
            with suppress(OSError):
                status = denied.lstat()
                mode = stat.S_IMODE(status.st_mode)
                return f"; {denied.name} has mode {mode:04o} and belongs to {user_name(status.st_uid)}"
    return ""


def _explain_directory(mode: int) -> str | None:
    if stat.S_ISLNK(mode):
        return "is a symbolic link"
    return None if stat.S_ISDIR(mode) else "is not a directory"


def _explain_file(path: Path, mode: int) -> str | None:
    """Return what is wrong with the last component; None for a readable regular file.

    Opens the file and reads one byte. Raises OSError if that fails.
    """
    if stat.S_ISLNK(mode):
        return "is a symbolic link"
    if stat.S_ISDIR(mode):
        return IS_DIRECTORY
    if not stat.S_ISREG(mode):
        return f"is {_KINDS.get(stat.S_IFMT(mode), 'not a regular file')}"
    descriptor = os.open(path, FILE_FLAGS)
    try:
        os.pread(descriptor, 1, 0)
    finally:
        os.close(descriptor)
    return None
