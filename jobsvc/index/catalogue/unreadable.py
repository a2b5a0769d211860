"""Jobs whose record is unreadable now, why, and when it was last known to be current. Event loop only."""

from __future__ import annotations

from typing import Final

import structlog

from jobsvc.index.catalogue.missing_files import ABSENCE_GRACE_S

LOG_INTERVAL_S: Final = 60.0
"""Minimum seconds between two log lines about one job whose record is unreadable for changing reasons."""

log = structlog.get_logger("jobsvc.index")


class UnreadableRecord:
    """One job's unreadable record, from the first failed read until one succeeds. Monotonic seconds."""

    __slots__ = ("found_at", "last_valid_at", "logged_at", "logged_reason", "reason")

    def __init__(self, reason: str, found_at: float, last_valid_at: float) -> None:
        self.reason = reason
        self.found_at = found_at
        self.last_valid_at = last_valid_at
        """When the last good record was last known to be current; `found_at` if there was none."""
        self.logged_reason: str | None = None
        self.logged_at = 0.0


class UnreadableRecords(dict[str, UnreadableRecord]):
    """All unreadable records, by job id."""

    __slots__ = ()

    def add(self, job_id: str, reason: str, started_at: float, last_valid_at: float) -> bool:
        """Record a failed read that started at `started_at`. Returns whether it is the first in a row.

        `last_valid_at` is ignored unless it is the first.
        """
        record = self.get(job_id)
        if record is None:
            self[job_id] = UnreadableRecord(reason, started_at, last_valid_at)
            return True
        record.reason = reason
        return False

    def discard(self, job_id: str) -> None:
        """Remove a job whose record was read, or that no longer exists."""
        self.pop(job_id, None)

    def log_once(self, job_id: str, now: float) -> None:
        """Log the job and the reason, unless the same reason was logged last.

        Nothing is logged in the first ABSENCE_GRACE_S, when the file might be half written, and a new reason
        only LOG_INTERVAL_S after the last line. `now` is in monotonic seconds.
        """
        record = self[job_id]
        if now - record.found_at < ABSENCE_GRACE_S or record.reason == record.logged_reason:
            return
        if record.logged_reason is None or now - record.logged_at >= LOG_INTERVAL_S:
            record.logged_reason, record.logged_at = record.reason, now
            log.warning("record-unreadable", job=job_id, reason=record.reason)
