"""Opens a job's output where no storage need be asked: all of it is in the kernel's memory, or it is refused.

openat2(2) with RESOLVE_CACHED fails where a name is not in memory or its file system wants to be asked again;
on the file systems named here opening such a file, and asking its descriptor, waits for nothing either. So
these calls, and only these, are for the event loop. Whatever is not plainly as it is known is refused too:
the way through a thread finds out what it is.
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
from jobsvc.storage.nonblocking.openat2 import open_file, open_name, path_has_version, try_fstat
from jobsvc.storage.threads.background_closer import close

NONBLOCKING_TYPES: Final = frozenset({"ext2", "ext3", "ext4", "f2fs", "ramfs", "tmpfs", "xfs"})
"""File systems whose open and fstat of a file in memory wait for no one: neither a disk nor another host."""


class CachedOutputs:
    """The root of all jobs, as far as it lies in memory; belongs to the event loop."""

    def __init__(self, path: Path, device: int, dispose: Callable[[object], None] = close) -> None:
        """Take the root and the device that it lies on: what is mounted within it may be of another kind.

        `dispose` closes what was kept, where that may wait.
        """
        self._prefix = f"{path}/"
        self._device = device
        self._kept = DescriptorCache(dispose)

    @classmethod
    def of(cls, path: Path, dispose: Callable[[object], None] = close) -> Self | None:
        """Look what the root lies on; None where opening may wait. Touches storage; OSError."""
        return cls(path, path.stat().st_dev, dispose) if file_system(path) in NONBLOCKING_TYPES else None

    def open_output(self, known: JobSnapshot) -> OpenFile | None:
        """Open the output of a completed job whose record is still the one that is known, without a wait.

        None where that can't be, or where anything is not as expected. Never raises.
        """
        job = known.job
        if not (job.status is Status.COMPLETED and known.is_stable):
            return None
        return self._kept.get(known) or self._open_and_cache(known)

    def is_unchanged_nowait(self, known: JobSnapshot) -> bool:
        """Whether to look at a job anew would give `known`, as far as that can be told without a wait.

        False too where anything is not in memory, or not as expected. Never raises.
        """
        if not known.is_stable:
            return False
        return self._record(known).exists() and self._has_output(known)

    def evict_idle(self) -> None:
        """Close what was kept already when this was called last."""
        self._kept.evict_idle()

    def close(self) -> None:
        """Close all that is kept."""
        self._kept.close()

    def _folder(self, job: Job) -> str:
        return f"{self._prefix}{job.id}/"

    def _record(self, known: JobSnapshot) -> RecordCheck:
        return RecordCheck.of(os.fsencode(self._folder(known.job) + STATUS_FILE), known, self._device)

    def _has_output(self, known: JobSnapshot) -> bool:
        """Whether a completed job's output is still the version that is known; any other job has none."""
        job, output = known.job, known.output_version
        if job.status is not Status.COMPLETED:
            return True
        names = _names_within(job)
        if names is None or output is None:
            return False
        path = os.fsencode(self._folder(job) + "/".join(names))
        return path_has_version(path, output.parts(), self._device)

    def _open_and_cache(self, known: JobSnapshot) -> OpenFile | None:
        """Open the output and keep it for who asks next; its folders first, to see whether they moved."""
        names, record, folder = _names_within(known.job), self._record(known), self._folder(known.job)
        if names is None or not record.exists():
            return None
        folders = []
        for count in range(1, len(names)):
            fd = open_name(os.fsencode(folder + "/".join(names[:count])))
            if fd >= 0 and (found := folder_of(fd)) is not None:
                folders.append(found)
        file = self._open(folder + "/".join(names), names[-1])
        if file is None or len(folders) < len(names) - 1:
            for passed in folders:
                os.close(passed.fd)
        else:
            self._kept.put(record, file, tuple(folders))
        return file

    def _open(self, path: str, name: str) -> OpenFile | None:
        """Open a regular file of our device that has a name still."""
        fd = open_file(os.fsencode(path))
        if fd < 0:
            return None
        status = try_fstat(fd)
        if status is not None and self._is_output(status):
            return OpenFile(fd, FileVersion.of(status), name, status.st_nlink)
        os.close(fd)
        return None

    def _is_output(self, status: os.stat_result) -> bool:
        return stat.S_ISREG(status.st_mode) and status.st_nlink > 0 and status.st_dev == self._device


def _names_within(job: Job) -> tuple[str, ...] | None:
    """Split the path of an output that lies in the job's own folder; None where it lies elsewhere."""
    path = job.output_path or ""
    return None if path.startswith("/") else components(path)
