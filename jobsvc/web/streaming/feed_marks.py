"""Write the mark of a change feed as an event id: opaque to clients, but not secret.

It grants nothing: a forged id only changes which of the client's own jobs are sent.
"""

from __future__ import annotations

import re
from typing import Final

from jobsvc.index.queries.change_feed import FeedMark

_EVENT_ID: Final = re.compile("([0-9a-f]{12})-([0-9]{1,15})-([0-9]{1,15})", re.ASCII)


def format_mark(mark: FeedMark) -> str:
    """Return the event id of a mark; the time is in milliseconds, rounded down."""
    return f"{mark.epoch}-{mark.position}-{int(mark.seen_until * 1000)}"


def parse_mark(event_id: str | None) -> FeedMark | None:
    """Parse an event id that a client sends; None if it is not from a change feed."""
    match = _EVENT_ID.fullmatch(event_id or "")
    return None if match is None else FeedMark(match[1], int(match[2]), int(match[3]) / 1000)
