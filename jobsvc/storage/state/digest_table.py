"""Keep SHA-256 digests in memory: of the main output of each job, and of other files that were requested.

Each is valid for one version of its file.

Bounded: the entry that was added first is dropped. Used by one thread; no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from jobsvc.storage.files.file_version import PACKED_SIZE, FileVersion
from jobsvc.storage.layout import is_job_id

MAX_DIGESTS: Final = 65_536
"""Maximum number of digests; each takes about 200 bytes of memory."""

PATH_HASH_BYTES: Final = 16
_PATH_HASH: Final = re.compile(f"[0-9a-f]{{{2 * PATH_HASH_BYTES}}}")
DIGEST_BYTES: Final = 32
"""Size of a digest, in bytes."""
ENTRY_BYTES: Final = PACKED_SIZE + DIGEST_BYTES
"""Size of an entry (see pack_entry), in bytes."""


class DigestTable:
    """Digests by key (see `digest_key`)."""

    def __init__(self, max_entries: int = MAX_DIGESTS) -> None:
        self._max_entries = max_entries
        self._entries: dict[str, bytes] = {}
        """By key: the packed file version followed by the digest. A tuple would take three objects."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    @property
    def entries(self) -> Mapping[str, bytes]:
        """A copy of the entries (see pack_entry) by key, the oldest first; for use in another thread."""
        return self._entries.copy()

    def find(self, key: str, version: FileVersion) -> bytes | None:
        """Return the digest of this version of a file; None if it is not known."""
        entry = self._entries.get(key)
        return entry[PACKED_SIZE:] if entry is not None and entry.startswith(version) else None

    def put(self, key: str, entry: bytes) -> None:
        """Add an entry made by pack_entry; it replaces the one for another version of the file."""
        self._entries.pop(key, None)
        self._entries[key] = entry
        if len(self._entries) > self._max_entries:
            del self._entries[next(iter(self._entries))]

    def put_newer(self, key: str, entry: bytes) -> bool:
        """Add an entry unless that of a file modified at the same time, or later, is known.

        Return whether it was added. Hosts that see different inode numbers do not replace each other's
        entries.
        """
        known = self._entries.get(key)
        if known is not None and _version(known).mtime_ns >= _version(entry).mtime_ns:
            return False
        self.put(key, entry)
        return True

    def restore(self, entries: dict[str, bytes]) -> None:
        """Replace all entries; `entries` must not exceed the maximum number."""
        self._entries = entries


def digest_key(job_id: str, path: str | None = None) -> str:
    """Return the key of a digest: the job id for the main output, else that and a hash of the file's path."""
    if path is None:
        return job_id
    digest = blake2b(path.encode("utf-8", "surrogateescape"), digest_size=PATH_HASH_BYTES).hexdigest()
    return f"{job_id}/{digest}"


def is_digest_key(key: object) -> bool:
    """Return whether `digest_key` can return this."""
    if not isinstance(key, str):
        return False
    job_id, slash, path_hash = key.partition("/")
    return is_job_id(job_id) and (not slash or _PATH_HASH.fullmatch(path_hash) is not None)


def pack_entry(version: FileVersion, digest: bytes) -> bytes:
    """Return the entry for a file version and its digest."""
    return version + digest


def _version(entry: bytes) -> FileVersion:
    return FileVersion.from_packed(entry[:PACKED_SIZE])
