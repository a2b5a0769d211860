"""Parse server-sent events incrementally, as HTML defines them (section 9.2.6). Pure.

The bytes can be split anywhere. An event counts once its blank line has arrived: one that the end of the
connection cuts is not returned, and its id is not the last one.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from jobsvc.client.errors import UnexpectedResponse
from jobsvc.client.protocol.steps import MAX_BODY

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_DIGITS: Final = re.compile(rb"[0-9]{1,9}")


class Event(NamedTuple):
    """One event."""

    name: str
    data: str
    id: str | None
    """The id that came with this event; None if it has none."""


class EventParser:
    """Parses the body of one event stream."""

    def __init__(self, last_event_id: str = "") -> None:
        """`last_event_id`: of an earlier connection."""
        self.last_event_id = last_event_id
        """What to send when reconnecting: the newest id of a complete event, also of one without data."""
        self.retry_s: float | None = None
        """The time after which the service suggests to reconnect."""
        self._partial = bytearray()
        self._size = 0
        """Bytes of the current event, including a line that is not complete."""
        self._after_cr = False
        self._is_first_line = True
        self._name = b""
        self._data: list[bytes] = []
        self._id: bytes | None = None

    def feed(self, received: bytes) -> list[Event]:
        """Take the next bytes, and return the events that they complete.

        Raises UnexpectedResponse if an event has more than MAX_BODY bytes.
        """
        if not received:
            return []
        data = received[1:] if self._after_cr and received.startswith(b"\n") else received
        self._after_cr = received.endswith(b"\r")
        self._size += len(data)
        if self._size > MAX_BODY:
            raise UnexpectedResponse(f"An event of the stream is larger than {MAX_BODY >> 20} MiB.")
        self._partial += data
        if b"\n" not in data and b"\r" not in data:
            return []
        lines = bytes(self._partial).splitlines()
        self._partial = bytearray(b"" if data.endswith((b"\n", b"\r")) else lines.pop())
        events = [event for line in lines if (event := self._take_line(line)) is not None]
        if events:
            self._size = len(self._partial) + sum(map(len, self._data))
        return events

    def _take_line(self, line: bytes) -> Event | None:
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value
        elif name == b"id":
            if b"\0" not in value:
                self._id = value
        elif name == b"retry" and _DIGITS.fullmatch(value):
            self.retry_s = int(value) / 1000
        return None

    def _dispatch(self) -> Event | None:
        event_id = None if self._id is None else self._id.decode("utf-8", "replace")
        if event_id is not None:
            self.last_event_id = event_id
        event = None
        if self._data:
            name = self._name.decode("utf-8", "replace") or "message"
            event = Event(name, b"\n".join(self._data).decode("utf-8", "replace"), event_id)
        self._name, self._data, self._id, self._size = b"", [], None, 0
        return event
