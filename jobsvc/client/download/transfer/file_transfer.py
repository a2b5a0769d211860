"""The state of one file while it is downloaded. All fields belong to the lock of the batch."""

from __future__ import annotations

import hashlib
from collections import deque
from io import FileIO
from pathlib import Path
from typing import Protocol

from jobsvc.client.download.local.part_file import PartFile, PartPaths
from jobsvc.client.download.local.safe_files import open_regular
from jobsvc.client.download.source import Source
from jobsvc.client.errors import DownloadError


class Superseded(Exception):
    """Another receiver starts the file over, or the download ends."""


class Receiver(Protocol):
    """Receives a part of a file in a worker thread."""

    start: int
    stop: int
    """The segment."""
    generation: int
    """The generation of the transfer that it belongs to."""

    @property
    def is_superseded(self) -> bool:
        """Whether nothing that it receives may be written any more."""

    def run(self) -> None:
        """Receive what the segment lacks, and call `batch.receiver_ended`."""

    def interrupt(self) -> None:
        """End its request; called by any thread."""


class Transfer:
    """One file that is downloaded to one target."""

    def __init__(
        self, index: int, source: Source, target: Path, paths: PartPaths, *, exists: bool = False
    ) -> None:
        """`exists`: the target exists, and is only compared with the source."""
        self.index = index
        """Position in the batch."""
        self.source = source
        self.target = target
        self.paths = paths
        self._directory = _identity(target.parent)
        self.exists = exists
        self.part: PartFile | None = None
        self.segments: deque[tuple[int, int]] = deque()
        """Intervals that no receiver has yet."""
        self.receivers: set[Receiver] = set()
        self.generation = 0
        """Increased when everything received is discarded; receivers of an older one give up."""
        self.is_received = False
        """Whether all bytes are on disk."""
        self.counted = 0
        """Bytes of it that progress counts as received."""
        self.most_received = 0
        """Maximum of bytes on disk, also before they were discarded."""
        self.replaced_count = 0
        self.discarded_count = 0
        self.hasher = hashlib.sha256()
        self.hashed = 0
        """Bytes from the start that `hasher` has."""
        self.sha256: str | None = None
        """Of the file on disk, once it is received and hashed."""
        self.expected = source.sha256
        """Of the service, once it is known."""
        self.started_at = 0.0

    def check_directory(self) -> None:
        """Raise DownloadError if the directory is another one by now: a link may lead elsewhere."""
        if _identity(self.target.parent) != self._directory:
            raise DownloadError(f"{self.target.parent} was replaced by another program.")

    @property
    def opened(self) -> PartFile:
        """The part file, after it was opened."""
        assert self.part is not None  # noqa: S101 - see above
        return self.part

    def plan(self, parallel: int) -> None:
        """Divide what is missing into segments."""
        size = self.source.segment_size(parallel)
        self.segments = deque(
            (start, min(start + size - start % size, stop))
            for gap_start, stop in self.opened.gaps()
            for start in _steps(gap_start, stop, size)
        )

    def reset(self, source: Source) -> None:
        """Begin anew, perhaps with another version."""
        if source.etag != self.source.etag:
            self.expected, self.most_received = source.sha256, 0
        self.source = source
        self.segments.clear()
        self.is_received = False
        self.counted = 0
        self.hasher, self.hashed, self.sha256 = hashlib.sha256(), 0, None

    @property
    def hashable(self) -> int:
        """Number of bytes from the start that can be hashed."""
        if self.exists:
            return self.source.size
        return 0 if self.part is None else self.part.prefix

    @property
    def hashed_path(self) -> Path:
        """The file that is hashed."""
        return self.target if self.exists else self.paths.part

    def open_hashed(self) -> FileIO:
        """Open this file. Raises OSError or DownloadError."""
        return open_regular(self.target) if self.exists else self.opened.open("rb")


def _identity(directory: Path) -> tuple[int, int] | None:
    """Return what tells a directory from others; None if it does not exist."""
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _steps(start: int, stop: int, size: int) -> list[int]:
    """Return the start of a gap and each multiple of `size` in it."""
    return [start, *range(start - start % size + size, stop, size)]
