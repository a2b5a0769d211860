"""Which SHA-256 the outputs have: one for a job, and good for one version of its output alone.

Bounded: of too many the one that was learnt first is forgotten. Owned by one thread; touches no storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jobsvc.storage.files.file_version import Identity

MOST: Final = 65_536
"""The most digests that are kept, some 200 bytes of memory each."""

VERSION: Final = len(Identity(0, 0, 0, 0))
"""Bytes of an identity."""

SIZE: Final = 32
"""Bytes of a digest."""


class DigestBook:
    """Digests by job."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._pages: dict[str, bytes] = {}
        """By job the version's identity with its digest right behind it: a pair would be three objects."""

    def __len__(self) -> int:
        return len(self._pages)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._pages

    @property
    def pages(self) -> Mapping[str, bytes]:
        """By job what `page_of` made, the oldest first; a copy, for another thread."""
        return self._pages.copy()

    def find(self, job_id: str, identity: Identity) -> bytes | None:
        """Return the digest of this version of the job's output, if it is known."""
        page = self._pages.get(job_id)
        return page[VERSION:] if page is not None and page.startswith(identity) else None

    def put(self, job_id: str, page: bytes) -> None:
        """Take in what `page_of` made, in place of what was known of another version."""
        self._pages.pop(job_id, None)
        self._pages[job_id] = page
        if len(self._pages) > self._most:
            del self._pages[next(iter(self._pages))]

    def restore(self, pages: dict[str, bytes]) -> None:
        """Know these, at most as many as are kept, and no others."""
        self._pages = pages


def page_of(identity: Identity, digest: bytes) -> bytes:
    """Put a version and its digest together."""
    return identity + digest
