"""Tells jobs that were removed from a storage that is away: gone, suddenly empty, or another device."""

from __future__ import annotations

import structlog

from jobsvc.storage.jobs.root_listing import RootStat

log = structlog.get_logger("jobsvc.index")


class RootCheck:
    """What the root was when it was last believed, and why it is not believed now. Loop-owned."""

    def __init__(self) -> None:
        self.unavailable_reason: str | None = None
        """Why the storage is away, for the operator; None while it is there."""
        self._unavailable_at = 0.0
        self._root_stat: RootStat | None = None

    def problem(self, place: RootStat, known: int) -> str | None:
        """Say why a root that looks so can't be believed while `known` jobs are; None if it can.

        The last of all jobs may be removed like any other; more than one at once is storage away.
        """
        before = self._root_stat
        if before is None or known == 0:
            return None
        if place.device != before.device:
            return "the root is on another device"
        if not place.may_have_jobs and (
            known > 1 or self.unavailable_reason is not None or place.inode != before.inode
        ):
            return "the root is empty"
        return None

    def accept(self, place: RootStat) -> bool:
        """Take this for the root; returns whether it is another than before, or was away."""
        moved = self._root_stat is not None and place[:2] != self._root_stat[:2]
        returned = self.unavailable_reason is not None
        if returned:
            log.warning("storage-back")
        self._root_stat, self.unavailable_reason = place, None
        return moved or returned

    def mark_unavailable(self, reason: str, asked: float) -> None:
        """Hold the storage for away: that is what a look at the root begun at `asked` found."""
        if self.unavailable_reason is None:
            log.warning("storage-away", reason=reason)
        self.unavailable_reason = reason
        self._unavailable_at = max(self._unavailable_at, asked)

    def unavailable_since(self, begun: float) -> bool:
        """Whether the storage has been found away since a look begun at `begun` (monotonic seconds).

        A later one that had an answer speaks for itself, though nobody has looked at the root since.
        """
        return self.unavailable_reason is not None and begun <= self._unavailable_at
