"""Keep track of which job each file on disk belongs to: files of two jobs must not replace each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from jobsvc.client.download.local.targets import folded
from jobsvc.client.download.sync.plan import NameTemplate
from jobsvc.client.download.sync.state import OWN_PREFIX, SyncState
from jobsvc.client.errors import DownloadError


class Owners:
    """The jobs that have files below the directory.

    If the template gives each job a directory, only jobs whose ids differ in case can have the same files.
    """

    def __init__(self, state: SyncState, template: NameTemplate, is_insensitive: Callable[[], bool]) -> None:
        """`is_insensitive` returns whether names that differ in case are one file in the directory."""
        self._state = state
        self._template = template
        self._is_insensitive = is_insensitive

    def claim(self, job_id: str, paths: Sequence[str]) -> None:
        """Raise DownloadError if a path is one of the sync itself, or of a file of another job."""
        for path in paths:
            if path.casefold().startswith(OWN_PREFIX):
                raise DownloadError(f"A file of {job_id} is named {path}, which belongs to the sync itself.")
        if self._template.separates_jobs:
            self._claim_directory(job_id)
        else:
            self._claim_paths(job_id, paths)

    def _claim_directory(self, job_id: str) -> None:
        owner = self._jobs.setdefault(job_id.casefold(), job_id)
        if owner != job_id and self._has_insensitive_names:
            raise DownloadError(f"{job_id} and {owner} would have the same directory here.")

    def _claim_paths(self, job_id: str, paths: Sequence[str]) -> None:
        for path in paths:
            if (owner := self._paths.get(self._key(path), job_id)) != job_id:
                raise DownloadError(
                    f"Files of {job_id} and {owner} have the same name {path}. Use {{id}} in the name."
                )
        self._paths.update((self._key(path), job_id) for path in paths)

    def _key(self, path: str) -> str:
        return folded((path,)) if self._has_insensitive_names else path

    @cached_property
    def _has_insensitive_names(self) -> bool:
        return self._is_insensitive()

    @cached_property
    def _jobs(self) -> dict[str, str]:
        return {job_id.casefold(): job_id for job_id in self._state.job_ids()}

    @cached_property
    def _paths(self) -> dict[str, str]:
        return {self._key(path): job_id for path, job_id in self._state.paths()}
