"""Find out which files on disk are those of the service, by their SHA-256: after the state was lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from jobsvc.client.download.sync.plan import PlannedFile
from jobsvc.client.models import File

FIRST_PAUSE_S = 0.2
MAX_PAUSE_S: Final = 5.0
PATIENCE_S: Final = 60.0
PATIENCE_BYTES_PER_S: Final = 10_000_000
"""How long to wait for the next digest, without and per byte of the largest file."""


def equal_files(
    candidates: Sequence[tuple[PlannedFile, Path]],
    *,
    list_files: Callable[[], list[File]],
    sha256_of: Callable[[Path], str | None],
    pause: Callable[[float], object],
) -> set[str]:
    """Return the paths of the candidates of a job that are equal to the files of the service.

    `list_files` lists the files of the job, and requests digests that are not known yet; one that is not
    known in time counts as different. `sha256_of` returns None for a file that cannot be read.
    """
    digests = _digests([planned.file for planned, _ in candidates], list_files, pause)
    return {
        planned.path
        for planned, target in candidates
        if (digest := digests.get(_version(planned.file))) is not None and sha256_of(target) == digest
    }


def _digests(
    files: Sequence[File], list_files: Callable[[], list[File]], pause: Callable[[float], object]
) -> dict[tuple[str, str, str], str]:
    """Return the SHA-256 of these versions of files, as far as the service tells it in time."""
    wanted = {_version(file) for file in files}
    known = _known(files)
    patience = PATIENCE_S + max(file.size for file in files) / PATIENCE_BYTES_PER_S
    seconds, waited = FIRST_PAUSE_S, 0.0
    while len(known) < len(wanted) and waited < patience:
        pause(seconds)
        listed = list_files()
        wanted &= {_version(file) for file in listed}
        found = {version: digest for version, digest in _known(listed).items() if version in wanted}
        if len(found) > len(known):
            seconds, waited = FIRST_PAUSE_S, 0.0
        else:
            seconds, waited = min(2 * seconds, MAX_PAUSE_S), waited + seconds
        known = found
    return known


def _known(files: Sequence[File]) -> dict[tuple[str, str, str], str]:
    return {_version(file): file.sha256 for file in files if file.sha256 is not None}


def _version(file: File) -> tuple[str, str, str]:
    return file.output, file.path, file.etag
