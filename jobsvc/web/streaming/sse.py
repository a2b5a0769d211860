"""Format server-sent events (HTML, section 9.2), and read the id of a client's last event. No I/O."""

from __future__ import annotations

from typing import Final, TypeAlias

import orjson
from aiohttp import hdrs, web

from jobsvc.web import query_params

LAST_EVENT_ID: Final = "lastEventId"
"""Query parameter in which EventSource polyfills send the value that browsers send as Last-Event-ID."""

Buffer: TypeAlias = bytes | memoryview


def event(name: str, data: bytes, event_id: str | None = None) -> bytes:
    """Format one event; the client sends its id when it reconnects.

    `name` and `event_id` must not come from a client.
    """
    return b"".join(parts(name, event_id, data.replace(b"\n", b"\ndata: ")))


def parts(name: str, event_id: str | None, *data: Buffer) -> tuple[Buffer, ...]:
    """Format an event with one line of data as parts, so that all clients share the data of a large one."""
    id_line = b"" if event_id is None else b"id: %b\n" % event_id.encode()
    return b"event: %b\n%bdata: " % (name.encode(), id_line), *data, b"\n\n"


def position(event_id: str) -> bytes:
    """Format an id without an event: what a client sends if it has to reconnect before the first event."""
    return b"id: %b\n\n" % event_id.encode()


def text(data: bytes) -> bytes:
    """Convert bytes into text for an event: valid UTF-8, only LF as line end, without the last line end."""
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("utf-8", "replace").encode()
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n")


def last_event_id(request: web.Request) -> str | None:
    """Return the id of the client's last event, from the header or else from the query parameter.

    An empty id counts as none (HTML, section 9.2.2). Raises BadRequest if the parameter is repeated.
    """
    in_query = query_params.get_text(request.query, LAST_EVENT_ID)
    return request.headers.get("Last-Event-ID", in_query) or None


def removed(job_id: str, event_id: str | None = None) -> bytes:
    """Format the event that a job no longer exists for this client; it does not tell why."""
    return event("removed", orjson.dumps({"id": job_id}), event_id)


def nothing_more() -> web.Response:
    """Return the 204 for a client that already has all events: an EventSource then stops reconnecting."""
    return web.Response(status=204, headers={hdrs.CACHE_CONTROL: "no-store"})
