"""Find out which outputs of a job exist, and whether each is a file, a sequence or a directory. Blocking.

An existing file takes precedence over a pattern: `take#2.exr` can be a file. A directory with such a name is
one only if its path ends in a slash. Files and directories are opened, because opening asks the server of a
network file system.
"""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

from jobsvc.domain.job import Job
from jobsvc.domain.outputs import Output, OutputKind, Role, sequence_pattern
from jobsvc.storage.files.client_version import client_version
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import Opened, PathNotFound, call_in_parent, open_file_or_directory
from jobsvc.storage.jobs.output_roots import OutputRoots
from jobsvc.storage.jobs.output_states import OutputState, pack_states


class FoundOutputs(NamedTuple):
    """The outputs of a job as they are on disk."""

    main_file: Opened | None
    """The main output if it is a file; the caller closes it."""
    main_version: FileVersion | None
    """The version of that file."""
    packed: bytes | None
    """The states of all outputs; None if the job has no output besides that file."""

    def close(self) -> None:
        """Close the main output."""
        if self.main_file is not None:
            os.close(self.main_file[0])


NO_OUTPUTS: Final = FoundOutputs(None, None, None)


class _Found(NamedTuple):
    state: OutputState
    file: Opened | None = None

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file[0])


class OutputFinder:
    """Finds outputs in job directories and below the output roots."""

    def __init__(self, roots: OutputRoots) -> None:
        self._roots = roots

    def find(self, folder: int, job: Job) -> FoundOutputs:
        """Find the outputs of a completed job; `folder` is a descriptor of its directory. Raises OSError."""
        if job.lists_outputs:
            return self._find_listed(folder, job, job.outputs)
        main = self._find(folder, job.owner, job.output_path or "")
        if main is None:
            return NO_OUTPUTS
        if main.file is None:
            return FoundOutputs(None, None, pack_states(job.outputs, [main.state]))
        return FoundOutputs(main.file, main.state.version, None)

    def _find_listed(self, folder: int, job: Job, outputs: tuple[Output, ...]) -> FoundOutputs:
        states, main_file, main_version = [], None, None
        try:
            for output in outputs:
                found = self._find(folder, job.owner, output.path)
                states.append(None if found is None else found.state)
                if found is not None and output.role is Role.MAIN and found.file is not None:
                    main_file, main_version = found.file, found.state.version
                elif found is not None:
                    found.close()
        except BaseException:
            FoundOutputs(main_file, None, None).close()
            raise
        return FoundOutputs(main_file, main_version, pack_states(outputs, states))

    def _find(self, folder: int, owner: str, path: str) -> _Found | None:
        """Return the output at a path; None if there is none, or if it cannot be read."""
        find_at = _find_directory if path.endswith("/") else _find_any
        try:
            return self._roots.open(find_at, folder, owner, path)
        except (PathNotFound, PermissionError):
            return None


def _find_directory(folder: int, names: tuple[str, ...]) -> _Found | None:
    return call_in_parent(folder, names, _find_directory_in)


def _find_any(folder: int, names: tuple[str, ...]) -> _Found | None:
    return call_in_parent(folder, names, _find_in)


def _find_directory_in(parent: int, name: str) -> _Found | None:
    found = _open_in(parent, name)
    found.close()
    return found if found.state.kind is OutputKind.DIRECTORY else None


def _find_in(parent: int, name: str) -> _Found | None:
    if sequence_pattern(name) is not None and not _is_file(parent, name):
        return _find_sequence(parent)
    return _open_in(parent, name)


def _is_file(parent: int, name: str) -> bool:
    """Return whether there is a file with this name; opening one that is absent can list the directory."""
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _open_in(parent: int, name: str) -> _Found:
    """Open a file, or check that a directory can be opened; raises PathNotFound or OSError."""
    fd, status = open_file_or_directory(parent, name)
    version = client_version(status)
    if stat.S_ISREG(status.st_mode):
        return _Found(OutputState(OutputKind.FILE, version), (fd, status, name))
    os.close(fd)
    return _Found(OutputState(OutputKind.DIRECTORY, version))


def _find_sequence(parent: int) -> _Found | None:
    if not os.access(".", os.R_OK, dir_fd=parent):
        return None
    return _Found(OutputState(OutputKind.SEQUENCE, client_version(os.fstat(parent))))
