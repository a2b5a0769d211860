"""Define what is downloaded: one version of a file or an archive, at a URL."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple

from jobsvc.client.models import File
from jobsvc.client.protocol.targets import job_target, with_query

CHUNK: Final = 8 << 20
"""Bytes after which the record is written: so many are fetched again after the process was killed."""
PARALLEL_SIZE: Final = 64 << 20
"""Size from which several connections share a file."""
MAX_SEGMENT: Final = 64 << 20
"""Bytes of one request for a part of a file."""
MAX_SEGMENTS: Final = 100_000
"""Requests for one file, whatever size the service says that it has: all of them are planned at once."""
NO_RANGES: Final = 0
"""Value of `max_segment`: the service sends the whole archive only."""


class Source(NamedTuple):
    """One version of a file or an archive."""

    job_id: str
    output: str | None
    """None for an archive."""
    path: str
    """Of the file in its output; of an archive, what selects it."""
    target: str
    """Path and query of the URL; they name this version."""
    etag: str
    """With its quotes."""
    size: int
    sha256: str | None = None
    modified_at: datetime | None = None
    max_segment: int | None = None
    """Maximum bytes of one request, if several connections share the file; None for MAX_SEGMENT."""

    @property
    def name(self) -> str:
        """The name that messages and progress show."""
        return self.path if self.output is not None else f"{self.job_id}.{archive_kind(self.path)}"

    def segment_size(self, parallel: int) -> int:
        """Return the bytes of one request: whole chunks, so that all connections have something to do."""
        if self.size < PARALLEL_SIZE or parallel == 1 or self.max_segment == NO_RANGES:
            return max(self.size, 1)
        share, least = -(-self.size // parallel), -(-self.size // MAX_SEGMENTS)
        return max(min(self.max_segment or MAX_SEGMENT, -(-share // CHUNK) * CHUNK), least)


def file_source(file: File) -> Source:
    """Return the source of a file of a job."""
    path = job_target(file.job_id, "files", file.output, *file.path.split("/"))
    target = with_query(path, [("version", _version(file.etag))])
    return Source(
        file.job_id, file.output, file.path, target, file.etag, file.size, file.sha256, file.modified_at
    )


def archive_target(job_id: str, kind: str, outputs: Collection[str]) -> str:
    """Return path and query of the archive of some outputs, or of all."""
    return with_query(job_target(job_id, f"archive.{kind}"), [("output", name) for name in outputs])


def archive_kind(path: str) -> str:
    """Return `tar` or `zip`, from the last part of an archive's URL."""
    return path.partition("?")[0].rpartition(".")[2]


def archive_source(job_id: str, target: str, etag: str, size: int, *, has_ranges: bool) -> Source:
    """Return the source of an archive; `target` is without a version.

    Each request of an archive is charged as one download, and makes the service list all files: so each
    connection gets its part in one request.
    """
    versioned = f"{target}{'&' if '?' in target else '?'}{with_query('', [('version', _version(etag))])[1:]}"
    path = target.rpartition("/")[2]
    return Source(job_id, None, path, versioned, etag, size, max_segment=size if has_ranges else NO_RANGES)


def _version(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
