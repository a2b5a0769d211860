"""Keep SHA-256 digests of outputs in memory: one per job, valid for one file version of its output.

Bounded: the entry that was added first is dropped. Used by one thread; no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jobsvc.storage.files.file_version import PACKED_SIZE, FileVersion

MAX_DIGESTS: Final = 65_536
"""Maximum number of digests; each takes about 200 bytes of memory."""

DIGEST_BYTES: Final = 32
"""Size of a digest, in bytes."""


class DigestTable:
    """Digests by job id."""

    def __init__(self, max_entries: int = MAX_DIGESTS) -> None:
        self._max_entries = max_entries
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

    def find(self, job_id: str, version: FileVersion) -> bytes | None:
        """Return the digest of this file version of the job's output; None if it is not known."""
        entry = self._entries.get(job_id)
        return entry[PACKED_SIZE:] if entry is not None and entry.startswith(version) else None

    def put(self, job_id: str, entry: bytes) -> None:
        """Add an entry made by pack_entry; it replaces the job's entry for another file version."""
        self._entries.pop(job_id, None)
        self._entries[job_id] = entry
        if len(self._entries) > self._max_entries:
            del self._entries[next(iter(self._entries))]

    def restore(self, entries: dict[str, bytes]) -> None:
        """Replace all entries; `entries` must not exceed the maximum number."""
        self._entries = entries


def pack_entry(version: FileVersion, digest: bytes) -> bytes:
    """Return the entry for a file version and its digest."""
    return version + digest
