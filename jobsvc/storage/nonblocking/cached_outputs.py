"""Open job outputs on the event loop without blocking, if all that is needed is in the kernel's caches.

openat2(2) with RESOLVE_CACHED fails if a name is not cached or its file system has to revalidate it. On the
file systems listed here, opening a cached file and calling fstat() on its descriptor do not block either. So
only these calls are made on the event loop. If anything differs from the known snapshot, the result is None
or False: the caller then uses a thread, which finds out the reason.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from jobsvc.domain.job import Job, Status
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.filesystem.mounts import file_system
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import STATUS_FILE, components
from jobsvc.storage.nonblocking.descriptor_cache import DescriptorCache, RecordCheck, folder_of
from jobsvc.storage.nonblocking.openat2 import path_has_version, try_fstat, try_open_file, try_open_name
from jobsvc.storage.threads.background_closer import close

NONBLOCKING_TYPES: Final = frozenset({"ext2", "ext3", "ext4", "f2fs", "ramfs", "tmpfs", "xfs"})
"""File systems on which open and fstat of a cached file wait neither for a disk nor for another host."""


_RECORD: Final = STATUS_FILE.encode()


class CachedOutputs:
    """Opens and checks outputs below the root, using cached data only. Event loop only."""

    def __init__(self, path: Path, device: int, dispose: Callable[[object], None] = close) -> None:
        """`device` is the root's st_dev: a file system mounted below the root might be of another type.

        `dispose` closes cached descriptors in a place where that may block.
        """
        self._prefix = f"{path}/"
        self._device = device
        self._cache = DescriptorCache(dispose)

    @classmethod
    def of(cls, path: Path, dispose: Callable[[object], None] = close) -> Self | None:
        """Create one for the root, or return None if opening files there can block.

        Accesses storage; raises OSError.
        """
        return cls(path, path.stat().st_dev, dispose) if file_system(path) in NONBLOCKING_TYPES else None

    def open_output(self, known: JobSnapshot) -> OpenFile | None:
        """Open the output of a completed job without blocking, if its record has not changed.

        Returns None if that is not possible or anything is not as expected. Never raises.
        """
        return (self._cache.get(known) or self._open_and_cache(known)) if _can_be_cached(known) else None

    def borrow_output(self, known: JobSnapshot) -> OpenFile | None:
        """Like `open_output`, for use before the next call only: the file may be the cached one itself."""
        return (self._cache.borrow(known) or self._open_and_cache(known)) if _can_be_cached(known) else None

    def open_file(self, known: JobSnapshot, path: str) -> OpenFile | None:
        """Like `open_output`, for another file of the job; `path` is as in its record."""
        names = None if path.startswith("/") else components(path)
        if names is None or not _can_be_cached(known):
            return None
        return self._open(known, names)

    def is_unchanged_nowait(self, known: JobSnapshot) -> bool:
        """Return whether the job's files are still the versions in the snapshot, without blocking.

        Returns False also if anything is not cached or not as expected. Never raises.
        """
        if not known.is_stable:
            return False
        return self._record(known).is_current() and self._has_output(known)

    def evict_idle(self) -> None:
        """Close the descriptors that were already cached at the previous call."""
        self._cache.evict_idle()

    def close(self) -> None:
        """Close all cached descriptors."""
        self._cache.close()

    def _folder(self, job: Job) -> str:
        return f"{self._prefix}{job.id}/"

    def _record(self, known: JobSnapshot) -> RecordCheck:
        return RecordCheck.of(os.fsencode(self._folder(known.job) + STATUS_FILE), known, self._device)

    def _has_output(self, known: JobSnapshot) -> bool:
        """Return whether the output is still the version in `known`; True if the job is not completed.

        Returns False if there are outputs besides one file: those are checked in a thread.
        """
        job, output = known.job, known.output_version
        if job.status is not Status.COMPLETED:
            return True
        names = _names_within(job)
        if names is None or output is None or known.packed_outputs is not None:
            return False
        path = os.fsencode(self._folder(job) + "/".join(names))
        return path_has_version(path, output.parts(), self._device)

    def _open_and_cache(self, known: JobSnapshot) -> OpenFile | None:
        """Open the output and cache it; directories on its path are opened first, to detect a rename."""
        names, folder = _names_within(known.job), self._folder(known.job)
        if names is None:
            return None
        folders = []
        for count in range(1, len(names)):
            fd = try_open_name(os.fsencode(folder + "/".join(names[:count])))
            if fd >= 0 and (opened := folder_of(fd)) is not None:
                folders.append(opened)
        file = self._open(known, names)
        if file is None or len(folders) < len(names) - 1:
            for passed in folders:
                os.close(passed.fd)
        else:
            self._cache.put(self._record(known), file, tuple(folders))
        return file

    def _open(self, known: JobSnapshot, names: tuple[str, ...]) -> OpenFile | None:
        """Open a file of a job; None if there is none, or if the record has changed.

        Another job may take the path of the directory at any time: file and record are in the same one.
        """
        folder = try_open_name(os.fsencode(self._folder(known.job)))
        if folder < 0:
            return None
        try:
            file = self._open_regular(folder, names)
            if file is None or path_has_version(_RECORD, known.record_version.parts(), self._device, folder):
                return file
            file.close()
            return None
        finally:
            os.close(folder)

    def _open_regular(self, folder: int, names: tuple[str, ...]) -> OpenFile | None:
        """Open a regular file on the root's device that still has a name; None if there is none."""
        fd = try_open_file(os.fsencode("/".join(names)), folder)
        if fd < 0:
            return None
        status = try_fstat(fd)
        if status is not None and self._is_output(status):
            return OpenFile(fd, FileVersion.of(status), names[-1], status.st_nlink)
        os.close(fd)
        return None

    def _is_output(self, status: os.stat_result) -> bool:
        return stat.S_ISREG(status.st_mode) and status.st_nlink > 0 and status.st_dev == self._device


def _can_be_cached(known: JobSnapshot) -> bool:
    return known.job.status is Status.COMPLETED and known.is_stable


def _names_within(job: Job) -> tuple[str, ...] | None:
    """Split a relative output path into names; None if it is absolute or names nothing."""
    path = job.output_path or ""
    return None if path.startswith("/") else components(path)
