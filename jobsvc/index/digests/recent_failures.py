"""Remember which file versions could not be hashed, so that they are not tried too often. No I/O."""

from __future__ import annotations

from typing import Final

from jobsvc.storage.files.file_version import FileVersion

RETRY_AFTER_S: Final = 60.0
"""Seconds before a version that could not be hashed can be retried, however often it is requested."""
MAX_RECENTLY_FAILED: Final = 1024
"""Maximum failed versions remembered; the oldest is dropped first."""


class RecentFailures:
    """The versions that failed less than RETRY_AFTER_S ago, by key of the digest."""

    def __init__(self) -> None:
        self._failed: dict[str, tuple[FileVersion, float]] = {}
        """By key: the version, and when it can be retried (seconds)."""

    def add(self, key: str, version: FileVersion, now: float) -> None:
        """Remember a failure at `now` (seconds)."""
        self._failed[key] = version, now + RETRY_AFTER_S
        if len(self._failed) > MAX_RECENTLY_FAILED:
            del self._failed[next(iter(self._failed))]

    def includes(self, key: str, version: FileVersion, now: float) -> bool:
        """Return whether this version cannot be retried yet at `now`."""
        failed_version, retry_at = self._failed.get(key, (None, 0))
        return failed_version == version and now < retry_at
