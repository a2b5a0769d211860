"""Read server-sent events over any number of connections, each continuing after the last event."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Final

from jobsvc.client.errors import ConnectionFailed, Problem
from jobsvc.client.protocol import problems
from jobsvc.client.protocol.long_lived import Persistence
from jobsvc.client.protocol.retry import read_problem
from jobsvc.client.protocol.sse import Event, EventParser
from jobsvc.client.protocol.steps import Close, Operation, Request, Stream, open_stream, read

IDLE_TIMEOUT_S: Final = 45.0
"""Seconds without a byte until a stream counts as dead: the service sends a comment every 15 s."""
STABLE_AFTER_S: Final = 5.0
"""A stream that lasts this long counts as progress, even without an event."""

_NO_CONTENT: Final = 204
_MAX_EVENT_ID: Final = 1000
"""Characters of an id that is sent back."""


class EventSource:
    """The events at one target."""

    def __init__(self, target: str, persistence: Persistence) -> None:
        self.connection_count = 0
        """Streams that were opened; with a new one, the service may start from the beginning."""
        self._target = target
        self._persistence = persistence
        self._parser = EventParser()
        self._events: deque[Event] = deque()
        self._stream: Stream | None = None
        self._opened_at = 0.0

    def next(self) -> Operation[Event | None]:
        """Return the next event; None once the service says that there are no more.

        Raises Problem; ConnectionFailed if the service was away for too long; DeadlinePassed.
        """
        while not self._events:
            self._persistence.check_deadline()
            try:
                if self._stream is None:
                    self._stream = yield from self._open()
                if self._stream is None:
                    return None
                yield from self._read(self._stream)
            except (ConnectionFailed, Problem) as exc:
                if self._stream is None:
                    self._persistence.last_error = exc
                elif monotonic() - self._opened_at >= STABLE_AFTER_S:
                    self._persistence.progress()
                yield from self.close()
                yield from self._persistence.pause(exc)
        return self._events.popleft()

    def close(self) -> Operation[None]:
        """End the current connection; the next event is read over a new one."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            yield Close(stream)

    def _open(self) -> Operation[Stream | None]:
        headers = {"accept": "text/event-stream"}
        last_event_id = self._parser.last_event_id
        is_sent = 0 < len(last_event_id) <= _MAX_EVENT_ID
        if is_sent and last_event_id.isascii() and last_event_id.isprintable():
            headers["last-event-id"] = last_event_id
        timeout = self._persistence.request_timeout(IDLE_TIMEOUT_S)
        stream = yield from open_stream(Request(self._target, headers=headers, timeout=timeout))
        if not problems.is_success(stream.status):
            raise (yield from read_problem(stream, self._target))
        if stream.status == _NO_CONTENT:
            yield Close(stream)
            return None
        if "text/event-stream" not in stream.headers.get("content-type", "").lower():
            yield Close(stream)
            problems.refuse(stream.headers, "event stream")
        self._persistence.responded()
        self._parser = EventParser(last_event_id)
        self._opened_at = monotonic()
        self.connection_count += 1
        return stream

    def _read(self, stream: Stream) -> Operation[None]:
        data = yield from read(stream, self._persistence.idle_timeout(IDLE_TIMEOUT_S))
        if not data:
            raise ConnectionFailed("The service or a proxy ended the stream.")
        self._events += self._parser.feed(data)
        if self._events:
            self._persistence.progress()


class JobListing:
    """The ids in the list of all jobs at the beginning of a stream, as far as it was received.

    The service sends the list without event ids and ends it with `present`. A new connection may begin it
    anew.
    """

    def __init__(self) -> None:
        self._connection = 0
        self._ids: set[str] = set()

    def begin(self, connection: int) -> None:
        """Start over if this is another connection than before."""
        if connection != self._connection:
            self._connection = connection
            self._ids.clear()

    def add(self, event: Event, job_id: str) -> None:
        """Add the job of an event, if the event belongs to the list."""
        if event.id is None:
            self._ids.add(job_id)

    def end(self) -> set[str]:
        """Return the ids of the complete list."""
        ids, self._ids = self._ids, set()
        return ids
