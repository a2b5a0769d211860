"""Decide which path of a job's record a URL of one of its files leads to. Pure.

This is the only way from such a URL to the disk. The path that is returned is opened by the rules for every
path of a record: without symbolic links, in the job directory or below an output root.
"""

from __future__ import annotations

from jobsvc.domain.outputs import Output, OutputKind, sequence_pattern
from jobsvc.storage.layout import components


def path_of_file(output: Output, kind: OutputKind, path: str | None) -> str | None:
    """Return the path of a file of an output; None if the output has no such file.

    `path` is relative to the output's directory, in the form in which files are listed: no other spelling of
    it is accepted. For a single file it is its name or None.
    """
    folder, slash, name = output.path.rpartition("/")
    if kind is OutputKind.FILE:
        return output.path if path in {None, name} else None
    if path is None or "/".join(components(path) or ()) != path:
        return None
    if kind is OutputKind.DIRECTORY:
        return f"{output.path.rstrip('/')}/{path}"
    pattern = sequence_pattern(name)
    is_frame = pattern is not None and pattern.frame_of(path, output.frames) is not None
    return f"{folder}{slash}{path}" if is_frame else None
