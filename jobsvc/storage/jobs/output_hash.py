"""SHA-256 of one version of an output, read a slice at a time; plain sync code for Disk's threads.

What comes of it is the digest of that very version, or nothing: again and again the file is asked whether it
still is the one that was wished for, and in the end its name too, for opening asks the server where fstat
may have an old answer. What was read is left in the page cache: a download of the same file is likely under
way, and to drop its pages (POSIX_FADV_DONTNEED) would cost it. They are only not held for much used.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from time import monotonic
from typing import Final

from jobsvc.domain.errors import OutputMissing
from jobsvc.domain.job import Job
from jobsvc.storage.files.client_version import version_of
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.reader import JobsRoot

READ_BYTES: Final = 1 << 20
"""Bytes of one read: so many that the interpreter's lock is seldom asked for, so few that slow storage ends a
slice in time."""
SLICE_S: Final = 0.01
"""Seconds that a thread stays with the file, where no read takes longer: few against the half second that the
download of a gigabyte takes out of memory."""


class OutputChanged(Exception):
    """The output is not, or not any more, the version that was to be hashed."""


class HashProgress:
    """How far the hash of a file has come; kept between turns, without an open file."""

    __slots__ = ("offset", "sha256")

    def __init__(self) -> None:
        self.offset = 0
        """Bytes that are in the hash."""
        self.sha256 = hashlib.sha256()


class OutputHasher:
    """One version of a job's output on its way to its digest; used by one thread at a time."""

    def __init__(
        self, root: JobsRoot, job: Job, identity: FileVersion, progress: HashProgress | None = None
    ) -> None:
        """Open the output; Replaced where it is another version, OSError for a fault of storage.

        `progress` is that of an earlier turn of the same version.
        """
        self.digest: bytes | None = None
        """Known once all of it was read and it was found unchanged."""
        self._root = root
        self._job = job
        self._identity = identity
        self.progress = HashProgress() if progress is None else progress
        self._piece = memoryview(bytearray(min(READ_BYTES, identity.size)))
        self._file = self._open()  # the last step that may fail
        with suppress(OSError):
            os.posix_fadvise(self._file.fd, 0, 0, os.POSIX_FADV_NOREUSE)

    def close(self) -> None:
        """Give the descriptor back; once only."""
        self._file.close()

    def hash_slice(self) -> int:
        """Go on for a slice; returns how many bytes it had. Replaced, or OSError for a fault of storage."""
        progress = self.progress
        begun, over = progress.offset, monotonic() + SLICE_S
        while progress.offset < self._identity.size:
            self._read()
            if monotonic() > over:
                break
        if version_of(os.fstat(self._file.fd)) != self._identity:
            raise OutputChanged
        if progress.offset == self._identity.size:
            self._open().close()
            self.digest = progress.sha256.digest()
        return progress.offset - begun

    def _read(self) -> None:
        progress = self.progress
        piece = self._piece[: self._identity.size - progress.offset]
        count = os.preadv(self._file.fd, [piece], progress.offset)
        if count == 0:
            raise OutputChanged
        progress.sha256.update(piece[:count])
        progress.offset += count

    def _open(self) -> OpenFile:
        try:
            file = self._root.open_output(self._job)
        except OutputMissing as missing:
            raise OutputChanged from missing
        if file.version != self._identity:
            file.close()
            raise OutputChanged
        return file
