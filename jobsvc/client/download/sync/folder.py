"""The directory that jobs are synchronized into. Names of the service are not trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobsvc.client.download.local.file_lock import InUse, open_locked, unlock
from jobsvc.client.download.local.placement import looks_identical
from jobsvc.client.download.local.targets import (
    check_distinct,
    is_insensitive,
    make_directory,
    make_parents,
    safe_parts,
)
from jobsvc.client.download.source import file_source
from jobsvc.client.download.sync.state import LOCK_NAME
from jobsvc.client.errors import DownloadError
from jobsvc.client.models import File


class Folder:
    """Files below one directory."""

    def __init__(self, root: Path) -> None:
        """Create the directory. Raises DownloadError."""
        self.root = root
        make_directory(root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory against other syncs. Raises DownloadError at once if there is one."""
        path = self.root / LOCK_NAME
        try:
            fd = open_locked(path)
        except InUse as exc:
            raise DownloadError(
                f"Another process syncs into {self.root}. Wait for its end, or use another directory."
            ) from exc
        except OSError as exc:
            raise DownloadError(f"{path} cannot be locked: {exc.strerror}.") from exc
        try:
            yield
        finally:
            unlock(fd, path)

    def targets(self, paths: Sequence[str]) -> dict[str, Path]:
        """Return the place of each path, with slashes, of one job. Raises DownloadError for an unsafe one."""
        parts = {path: safe_parts(path) for path in paths}
        check_distinct(self.root, parts.values())
        return {path: self.root.joinpath(*names) for path, names in parts.items()}

    def make_parents(self, targets: Iterable[Path]) -> None:
        """Create the directories of these places. Raises DownloadError."""
        make_parents(self.root, [target.relative_to(self.root).parts for target in targets])

    def looks_present(self, file: File, target: Path) -> bool:
        """Return whether a file is there with the size and modification time of that of the service."""
        return looks_identical(target, file_source(file))

    def is_insensitive(self) -> bool:
        """Return whether names that differ in case are one file. Raises DownloadError."""
        return is_insensitive(self.root)
