"""Send a response whose body is in memory in one write.

Polls and small ranges are most of the traffic, and aiohttp's general code costs a third more CPU time for
them. All other cases (HEAD, HTTP/1.0, a connection that closes) use the general code.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion11, web

from jobsvc.storage.nonblocking.cached_read import Body
from jobsvc.web.connection.connection import Connection, connection_of
from jobsvc.web.connection.response_stream import SentResponse
from jobsvc.web.headers.http_dates import format_date
from jobsvc.web.responses.common_headers import common_header_lines, further_lines

# Looking up a member of an enumeration takes a third of a microsecond.
OK: Final = HTTPStatus.OK
PARTIAL: Final = HTTPStatus.PARTIAL_CONTENT
NOT_MODIFIED: Final = HTTPStatus.NOT_MODIFIED

_MAX_COPIED_BYTES: Final = 4096
"""Up to this size, copying the body behind the head is cheaper than passing both separately."""


def header_lines(fields: Mapping[str, str]) -> str:
    """Format fields as header lines, without escaping: they must not contain data from a client."""
    return "".join([f"{name}: {value}\r\n" for name, value in fields.items()])


def write_response(
    request: web.Request, status: HTTPStatus, field_lines: str, body: Body | tuple[bytes, ...]
) -> web.StreamResponse | None:
    """Send a 200, 206 or 304 with the common headers at once; return None if aiohttp has to send it.

    `field_lines` are formatted by `header_lines`; Content-Length and Date are added here. A body in pieces is
    not copied.
    """
    plain = request.method == "GET" and request.version == HttpVersion11 and request.keep_alive
    if not plain or request.transport is None:
        return None
    further, connection = further_lines(request), connection_of(request)
    if isinstance(body, tuple) and len(body) > 1:
        connection.write_parts((_head(status, field_lines, sum(map(len, body)), further), *body))
    else:
        joined = body[0] if isinstance(body, tuple) else body
        write_fast(connection, status, field_lines, joined, further)
    return _SENT[status]


def write_fast(
    connection: Connection, status: HTTPStatus, field_lines: str, body: Body, further: str
) -> None:
    """Write such a response to a plain GET; `further` is what `further_lines` would return."""
    head = _head(status, field_lines, len(body), further)
    if len(body) <= _MAX_COPIED_BYTES:
        connection.write_soon(head + body)
    else:
        connection.write_parts((head, body))


def _head(status: HTTPStatus, field_lines: str, size: int, further: str) -> bytes:
    # The Content-Length of a 304 would have to be that of the 200 (RFC 9110, section 8.6), so it is omitted.
    length = "" if status is NOT_MODIFIED else f"Content-Length: {size}\r\n"
    common = common_header_lines(further)
    text = f"{_BEGINNING[status]}{field_lines}{common}{length}Date: {format_date(int(time.time()))}\r\n\r\n"
    return text.encode()


_BEGINNING: Final = {
    status: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in (OK, PARTIAL, NOT_MODIFIED)
}
_SENT: Final = {status: SentResponse(status=status) for status in _BEGINNING}
