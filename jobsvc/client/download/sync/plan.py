"""Decide what a sync has to do, from the lists of the service, the state and the files on disk. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

from jobsvc.client.download.sync.state import ListedJob, SyncState
from jobsvc.client.errors import DownloadError
from jobsvc.client.models import UNFINISHED, File

_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_ID: Final = re.compile(r"(?:^|/)\{id\}(?:/|$)")
_FIELDS: Final = frozenset({"id", "output", "path"})
_NOT_IN_SAMPLE: Final = frozenset("{}\\\0")


class Action(Enum):
    """What is to be done for a file."""

    NOTHING = "nothing"
    """This version was downloaded."""
    COMPARE = "compare"
    """The file on disk is probably this version: its SHA-256 decides."""
    DOWNLOAD = "download"


class PlannedFile(NamedTuple):
    """A file of the service, and what is to be done for it."""

    file: File
    path: str
    """Below the directory, with slashes."""
    action: Action


class NameTemplate:
    """The rule by which files are named: `{id}/{path}`."""

    def __init__(self, template: str) -> None:
        """`{id}`, `{output}` and `{path}` are replaced. Raises DownloadError if the template is invalid."""
        fields, sample = _FIELD.findall(template), _FIELD.sub("x", template)
        if "path" not in fields or not _FIELDS.issuperset(fields) or not _NOT_IN_SAMPLE.isdisjoint(sample):
            raise DownloadError(
                f"The name {template!r} is invalid: it needs {{path}}, and can have {{id}} and {{output}}."
            )
        if not {"", ".", ".."}.isdisjoint(sample.split("/")):
            raise DownloadError(f"The name {template!r} is invalid: it has to lead below the directory.")
        self.template = template
        self._has_output = "output" in fields
        self.separates_jobs = _ID.search(template) is not None
        """Whether files of two jobs can never have the same name."""

    def paths(self, files: Sequence[File]) -> list[str]:
        """Return the path of each file of a job below the directory, with slashes.

        `{path}` begins with the output if the job has several outputs and the template has no `{output}`.
        """
        with_output = not self._has_output and len({file.output for file in files}) > 1
        return [self._path(file, with_output=with_output) for file in files]

    def _path(self, file: File, *, with_output: bool) -> str:
        path = f"{file.output}/{file.path}" if with_output else file.path
        values = {"id": file.job_id, "output": file.output, "path": path}
        return _FIELD.sub(lambda field: values[field[1]], self.template)


def jobs_to_visit(listed: Iterable[ListedJob], state: SyncState) -> Iterator[ListedJob]:
    """Yield the listed jobs that may have files to download: those that the state does not know as done."""
    return (job for job in listed if job.status not in UNFINISHED and not state.is_done(job))


def plan_files(
    files: Sequence[File],
    paths: Sequence[str],
    known: Mapping[str, str],
    looks_present: Callable[[File, str], bool],
) -> list[PlannedFile]:
    """Return what is to be done for each file of a job.

    `known`: entity tags of the versions that were downloaded, by path. `looks_present` returns whether a file
    on disk has the size and the modification time of that of the service.
    """
    planned = []
    for file, path in zip(files, paths, strict=True):
        if known.get(path) == file.etag:
            action = Action.NOTHING  # also if it was deleted or moved away since
        else:
            action = Action.COMPARE if looks_present(file, path) else Action.DOWNLOAD
        planned.append(PlannedFile(file, path, action))
    return planned
