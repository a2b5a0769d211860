"""How server-sent events are written (HTML, section 9.2), and what a client says of those it had. No I/O."""

from __future__ import annotations

from typing import Final, TypeAlias

import orjson
from aiohttp import hdrs, web

from jobsvc.web import query_params

LAST_EVENT_ID: Final = "lastEventId"
"""Query parameter in which polyfills of EventSource send what a browser sends as Last-Event-ID."""

Buffer: TypeAlias = bytes | memoryview


def event(name: str, data: bytes, place: str | None = None) -> bytes:
    """Write one event; `place` is what the client names when it comes back. Both are ours alone."""
    told = data.replace(b"\n", b"\ndata: ")
    at = b"" if place is None else b"id: " + place.encode() + b"\n"
    return b"event: " + name.encode() + b"\n" + at + b"data: " + told + b"\n\n"


def parts(name: str, place: str | None, *data: Buffer) -> tuple[Buffer, ...]:
    """Write an event of one line as parts, so that all who are sent a large one share its data."""
    at = b"" if place is None else b"id: %b\n" % place.encode()
    return b"event: %b\n%bdata: " % (name.encode(), at), *data, b"\n\n"


def text(data: bytes) -> bytes:
    """Make text of bytes that events can carry: sound UTF-8, one kind of line end, and none at the end."""
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("utf-8", "replace").encode()
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n")


def offered(request: web.Request) -> str | None:
    """Return the id of the last event that a client has, from the header or else from the query; BadRequest.

    An empty one is none (HTML, section 9.2.2).
    """
    in_query = query_params.one(request.query, LAST_EVENT_ID)
    return request.headers.get("Last-Event-ID", in_query) or None


def removed(job_id: str, place: str | None = None) -> bytes:
    """Write that a job is, for this client, no more; whether it is another's says nothing."""
    return event("removed", orjson.dumps({"id": job_id}), place)


def nothing_more() -> web.Response:
    """Answer a client that came back and has all there will be: an EventSource stops coming then."""
    return web.Response(status=204, headers={hdrs.CACHE_CONTROL: "no-store"})
