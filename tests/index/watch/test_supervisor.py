"""How the service handles the lines that the watcher process writes."""

from __future__ import annotations

from typing import Any

import pytest

from jobsvc.index.watch.supervisor import handle_lines
from jobsvc.index.watch.watch_events import EventKind, WatchEvent, WatchEvents


class Listener(WatchEvents):
    """Records the callbacks."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def on_ready(self) -> None:
        self.calls.append("ready")

    def on_watched(self, number: int) -> None:
        self.calls.append(("watched", number))

    def on_limit_reached(self, number: int) -> None:
        self.calls.append(("limit-reached", number))

    def on_events(self, events: list[WatchEvent]) -> None:
        self.calls.append(events)

    def on_heartbeat(self, sent_at: float) -> None:
        self.calls.append(("heartbeat", sent_at))

    def on_unknown_line(self) -> None:
        self.calls.append("unknown")

    def on_lost(self) -> None:
        self.calls.append("lost")


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"",
        b"heartbeat",
        b"heartbeat soon",
        b"heartbeat nan",
        b"heartbeat inf",
        b"heartbeat 1e300",
        b"watched x",
        b"ready or not",
    ],
)
def test_invalid_line_is_counted_and_the_next_is_read(line: bytes) -> None:
    listener = Listener()
    handle_lines([b"changed a", line, b"gone b"], listener)
    assert listener.calls == [[(EventKind.CHANGED, "a")], "unknown", [(EventKind.GONE, "b")]]
