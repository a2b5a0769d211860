"""Jobs whose record cannot be read now, why, and when it was last known to be true. Loop-owned."""

from __future__ import annotations

from typing import Final

import structlog

from jobsvc.index.catalogue.missing_files import ABSENCE_GRACE_S

LOG_INTERVAL_S: Final = 60.0
"""The least time between two log lines about one job whose record stays unreadable for changing reasons."""

log = structlog.get_logger("jobsvc.index")


class UnreadableRecord:
    """One job's record, from the first read that failed until one succeeds. Times are monotonic seconds."""

    __slots__ = ("found_at", "last_valid_at", "logged_at", "logged_reason", "reason")

    def __init__(self, reason: str, found_at: float, last_valid_at: float) -> None:
        self.reason = reason
        self.found_at = found_at
        self.last_valid_at = last_valid_at
        """When the last good record, if there was one, was last known to be the current one."""
        self.logged_reason: str | None = None
        self.logged_at = 0.0


class UnreadableRecords(dict[str, UnreadableRecord]):
    """All of them, by job id."""

    __slots__ = ()

    def add(self, job_id: str, reason: str, begun: float, last_valid_at: float) -> bool:
        """Record a failed read that began at `begun`; return whether it is the first one in a row.

        `last_valid_at` counts only then.
        """
        record = self.get(job_id)
        if record is None:
            self[job_id] = UnreadableRecord(reason, begun, last_valid_at)
            return True
        record.reason = reason
        return False

    def discard(self, job_id: str) -> None:
        """Record that the job was read, or is gone."""
        self.pop(job_id, None)

    def log_once(self, job_id: str, now: float) -> None:
        """Log the job and the reason, once for each reason; not while the file may be half written."""
        record = self[job_id]
        if now - record.found_at < ABSENCE_GRACE_S or record.reason == record.logged_reason:
            return
        if record.logged_reason is None or now - record.logged_at >= LOG_INTERVAL_S:
            record.logged_reason, record.logged_at = record.reason, now
            log.warning("record-unreadable", job=job_id, reason=record.reason)
