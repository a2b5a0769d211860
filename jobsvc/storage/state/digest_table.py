"""Keep SHA-256 digests of outputs in memory: one per job, valid for one file version of its output.

Bounded: the entry that was added first is dropped. Used by one thread; no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jobsvc.storage.files.file_version import FileVersion

MAX_DIGESTS: Final = 65_536
"""Maximum number of digests; each takes about 200 bytes of memory."""

VERSION: Final = len(FileVersion(0, 0, 0, 0))
"""Size of a packed file version, in bytes."""

SIZE: Final = 32
"""Size of a digest, in bytes."""


class DigestTable:
    """Digests by job id."""

    def __init__(self, most: int = MAX_DIGESTS) -> None:
        self._most = most
        self._entries: dict[str, bytes] = {}
        """By job id: the packed file version followed by the digest. A tuple would take three objects."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entries

    @property
    def entries(self) -> Mapping[str, bytes]:
        """A copy of the entries (see pack_entry) by job id, the oldest first; for use in another thread."""
        return self._entries.copy()

    def find(self, job_id: str, identity: FileVersion) -> bytes | None:
        """Return the digest of this file version of the job's output; None if it is not known."""
        page = self._entries.get(job_id)
        return page[VERSION:] if page is not None and page.startswith(identity) else None

    def put(self, job_id: str, page: bytes) -> None:
        """Add an entry made by pack_entry; it replaces the job's entry for another file version."""
        self._entries.pop(job_id, None)
        self._entries[job_id] = page
        if len(self._entries) > self._most:
            del self._entries[next(iter(self._entries))]

    def restore(self, pages: dict[str, bytes]) -> None:
        """Replace all entries; `pages` must not exceed the maximum number."""
        self._entries = pages


def pack_entry(identity: FileVersion, digest: bytes) -> bytes:
    """Return the entry for a file version and its digest."""
    return identity + digest
