"""Compute the SHA-256 of one version of a file, one slice at a time. Blocking: runs in StorageExecutor.

The result is the digest of exactly that file version, or none: fstat(2) is checked after each slice, and at
the end the file is opened again by name, because opening asks the server while fstat may return cached
attributes. The pages that were read are left in the page cache: the same file is probably being downloaded,
and dropping them (POSIX_FADV_DONTNEED) would slow that down. POSIX_FADV_NOREUSE only keeps them from counting
as frequently used.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from time import monotonic
from typing import Final
from zlib import crc32

from jobsvc.domain.job import Job
from jobsvc.storage.files.client_version import client_version
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import OpenFile, PathNotFound
from jobsvc.storage.jobs.reader import JobsRoot

READ_BYTES: Final = 1 << 20
"""Bytes per read: enough to take the GIL rarely, few enough for a slice to end in time on slow storage."""
SLICE_S: Final = 0.01
"""Seconds per slice, unless one read takes longer: short next to a download (1 GB from memory: 0.5 s)."""


class OutputChanged(Exception):
    """The output is not, or is no longer, the file version to hash."""


class HashProgress:
    """Intermediate state of a hash; kept between slices, without an open file."""

    __slots__ = ("crc32", "offset", "sha256")

    def __init__(self, *, with_crc32: bool = False) -> None:
        self.offset = 0
        """Number of bytes hashed."""
        self.sha256 = hashlib.sha256()
        self.crc32 = 0 if with_crc32 else None
        """CRC-32 of these bytes, for zip archives; None if it is not computed."""


class OutputHasher:
    """Hash one version of a job's output, or of another file; used by one thread at a time."""

    def __init__(
        self,
        root: JobsRoot,
        job: Job,
        version: FileVersion,
        progress: HashProgress | None = None,
        path: str | None = None,
    ) -> None:
        """Open the file at `path`, or the main output.

        Raises OutputChanged if it is another version, OSError for a storage fault. `progress` is the state of
        an earlier OutputHasher of the same version.
        """
        self.digest: bytes | None = None
        """Set once the whole file is read and found unchanged."""
        self._root = root
        self._job = job
        self._path = job.output_path if path is None else path
        self._version = version
        self.progress = HashProgress() if progress is None else progress
        self._buffer = memoryview(bytearray(min(READ_BYTES, version.size)))
        self._file = self._open()  # last, because it can fail
        with suppress(OSError):
            os.posix_fadvise(self._file.fd, 0, 0, os.POSIX_FADV_NOREUSE)

    def close(self) -> None:
        """Close the descriptor; call only once."""
        self._file.close()

    def hash_slice(self) -> int:
        """Hash the next slice and return its size in bytes.

        Raises OutputChanged, or OSError for a storage fault.
        """
        progress = self.progress
        start, end_at = progress.offset, monotonic() + SLICE_S
        while progress.offset < self._version.size:
            self._read()
            if monotonic() > end_at:
                break
        if client_version(os.fstat(self._file.fd)) != self._version:
            raise OutputChanged
        if progress.offset == self._version.size:
            self._open().close()
            self.digest = progress.sha256.digest()
        return progress.offset - start

    def _read(self) -> None:
        progress = self.progress
        data = self._buffer[: self._version.size - progress.offset]
        count = os.preadv(self._file.fd, [data], progress.offset)
        if count == 0:
            raise OutputChanged
        progress.sha256.update(data[:count])
        if progress.crc32 is not None:
            progress.crc32 = crc32(data[:count], progress.crc32)
        progress.offset += count

    def _open(self) -> OpenFile:
        try:
            file = self._root.open_path(self._job, self._path or "")
        except PathNotFound as missing:
            raise OutputChanged from missing
        if file.version != self._version:
            file.close()
            raise OutputChanged
        return file
