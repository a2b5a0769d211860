"""Which SHA-256 the outputs have: one for a job, and good for one version of its output alone.

Bounded: of too many the one that was learnt first is forgotten. Owned by one thread; touches no storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jobsvc.storage.files.file_version import FileVersion

MAX_DIGESTS: Final = 65_536
"""The most digests that are kept, some 200 bytes of memory each."""

VERSION: Final = len(FileVersion(0, 0, 0, 0))
"""Bytes of an identity."""

SIZE: Final = 32
"""Bytes of a digest."""


class DigestTable:
    """Digests by job."""

    def __init__(self, most: int = MAX_DIGESTS) -> None:
        self._most = most
        self._entries: dict[str, bytes] = {}
        """By job the version's identity with its digest right behind it: a pair would be three objects."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._entries

    @property
    def entries(self) -> Mapping[str, bytes]:
        """By job what `page_of` made, the oldest first; a copy, for another thread."""
        return self._entries.copy()

    def find(self, job_id: str, identity: FileVersion) -> bytes | None:
        """Return the digest of this version of the job's output, if it is known."""
        page = self._entries.get(job_id)
        return page[VERSION:] if page is not None and page.startswith(identity) else None

    def put(self, job_id: str, page: bytes) -> None:
        """Take in what `page_of` made, in place of what was known of another version."""
        self._entries.pop(job_id, None)
        self._entries[job_id] = page
        if len(self._entries) > self._most:
            del self._entries[next(iter(self._entries))]

    def restore(self, pages: dict[str, bytes]) -> None:
        """Know these, at most as many as are kept, and no others."""
        self._entries = pages


def pack_entry(identity: FileVersion, digest: bytes) -> bytes:
    """Put a version and its digest together."""
    return identity + digest
