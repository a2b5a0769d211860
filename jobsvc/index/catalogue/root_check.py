"""Distinguish removed jobs from unavailable storage: root gone, suddenly empty or on another device."""

from __future__ import annotations

import structlog

from jobsvc.storage.jobs.root_listing import RootStat

log = structlog.get_logger("jobsvc.index")


class RootCheck:
    """The last accepted state of the root, and why the storage is unavailable, if it is. Event loop only."""

    def __init__(self) -> None:
        self.unavailable_reason: str | None = None
        """Why the storage is unavailable, for the operator; None while it is available."""
        self._unavailable_at = 0.0
        self._root_stat: RootStat | None = None

    def problem(self, root_stat: RootStat, known: int) -> str | None:
        """Return why this state of the root is implausible while `known` jobs are known; None if plausible.

        If only one job was known, an empty root can mean that it was removed. If several were known, it
        means that the storage is unavailable.
        """
        previous = self._root_stat
        if previous is None or known == 0:
            return None
        if root_stat.device != previous.device:
            return "the jobs root is on another device"
        if not root_stat.may_have_jobs and (
            known > 1 or self.unavailable_reason is not None or root_stat.inode != previous.inode
        ):
            return "the jobs root is empty"
        return None

    def accept(self, root_stat: RootStat) -> bool:
        """Accept this state of the root. Returns whether the root is another one, or was unavailable."""
        moved = self._root_stat is not None and root_stat[:2] != self._root_stat[:2]
        returned = self.unavailable_reason is not None
        if returned:
            log.warning("storage-returned")
        self._root_stat, self.unavailable_reason = root_stat, None
        return moved or returned

    def mark_unavailable(self, reason: str, started_at: float) -> None:
        """Mark the storage as unavailable, by a check started at `started_at` (monotonic seconds)."""
        if self.unavailable_reason is None:
            log.warning("storage-missing", reason=reason)
        self.unavailable_reason = reason
        self._unavailable_at = max(self._unavailable_at, started_at)

    def unavailable_since(self, started_at: float) -> bool:
        """Return whether the storage was found unavailable at or after `started_at` (monotonic seconds).

        A read that started after that check and got a result is valid even before the next root check.
        """
        return self.unavailable_reason is not None and started_at <= self._unavailable_at
