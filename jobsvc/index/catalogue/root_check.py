"""Tells jobs that were removed from a storage that is away: gone, suddenly empty, or another device."""

from __future__ import annotations

import structlog

from jobsvc.storage.jobs.root_listing import Place

log = structlog.get_logger("jobsvc.index")


class Presence:
    """What the root was when it was last believed, and why it is not believed now. Loop-owned."""

    def __init__(self) -> None:
        self.away: str | None = None
        """Why the storage is away, for the operator; None while it is there."""
        self._doubted = 0.0
        self._place: Place | None = None

    def judge(self, place: Place, known: int) -> str | None:
        """Say why a root that looks so can't be believed while `known` jobs are; None if it can.

        The last of all jobs may be removed like any other; more than one at once is storage away.
        """
        before = self._place
        if before is None or known == 0:
            return None
        if place.device != before.device:
            return "the root is on another device"
        if not place.jobs and (known > 1 or self.away is not None or place.inode != before.inode):
            return "the root is empty"
        return None

    def believe(self, place: Place) -> bool:
        """Take this for the root; returns whether it is another than before, or was away."""
        moved = self._place is not None and place[:2] != self._place[:2]
        returned = self.away is not None
        if returned:
            log.warning("storage-back")
        self._place, self.away = place, None
        return moved or returned

    def doubt(self, reason: str, asked: float) -> None:
        """Hold the storage for away: that is what a look at the root begun at `asked` found."""
        if self.away is None:
            log.warning("storage-away", reason=reason)
        self.away = reason
        self._doubted = max(self._doubted, asked)

    def doubts(self, begun: float) -> bool:
        """Whether the storage has been found away since a look begun at `begun` (monotonic seconds).

        A later one that had an answer speaks for itself, though nobody has looked at the root since.
        """
        return self.away is not None and begun <= self._doubted
