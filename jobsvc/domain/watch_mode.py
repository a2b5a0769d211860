"""How changes of jobs are detected."""

from __future__ import annotations

from enum import StrEnum


class WatchMode(StrEnum):
    """How changes are detected; AUTO selects EVENTS on local file systems, else POLL."""

    AUTO = "auto"
    EVENTS = "events"
    """By inotify."""
    POLL = "poll"
    """By reading unfinished jobs and listing the root at an interval."""
