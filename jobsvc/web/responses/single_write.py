"""Send a response whose body is in memory in one write.

Polls and small ranges are most of the traffic, and aiohttp's general code costs a third more CPU time for
them. All other cases (HEAD, HTTP/1.0, a connection that closes) use the general code.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, cast

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time

from jobsvc.storage.nonblocking.cached_read import Body
from jobsvc.web.connection.protocol import Connection
from jobsvc.web.ratelimit import budgets
from jobsvc.web.responses.common_headers import common_header_lines

# Looking up a member of an enumeration takes a third of a microsecond.
OK: Final = HTTPStatus.OK
PARTIAL: Final = HTTPStatus.PARTIAL_CONTENT
NOT_MODIFIED: Final = HTTPStatus.NOT_MODIFIED

_UNPAUSED: Final = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)
"""Whether asyncio's writelines() buffers without limit for a slow client (CVE-2024-12254)."""
_COPIED: Final = 4096
"""Bytes; up to this size, copying the body behind the head is cheaper than passing both separately."""


def lines(fields: Mapping[str, str]) -> str:
    """Format fields as header lines, without escaping: they must not contain data from a client."""
    return "".join([f"{name}: {value}\r\n" for name, value in fields.items()])


def write_response(
    request: web.Request, status: HTTPStatus, told: str, body: Body | tuple[bytes, ...]
) -> web.StreamResponse | None:
    """Send a 200, 206 or 304 with the common headers at once; return None if aiohttp has to send it.

    `told` are the fields as formatted by `lines`; Content-Length and Date are added here. A body in pieces is
    not copied.
    """
    plain = request.method == "GET" and request.version == HttpVersion11 and request.keep_alive
    if not plain or (transport := request.transport) is None:
        return None
    budget = budgets.lines(request)
    if isinstance(body, tuple) and len(body) > 1:
        _write_all(transport, (_head(status, told, sum(map(len, body)), budget), *body))
    else:
        whole = body[0] if isinstance(body, tuple) else body
        write_fast(cast(Connection, request.protocol), status, told, whole, budget)
    return _SENT[status]


def write_fast(connection: Connection, status: HTTPStatus, told: str, body: Body, budget: str) -> None:
    """Write such a response to a plain GET; `budget` is the result of `budgets.lines`."""
    head = _head(status, told, len(body), budget)
    if len(body) <= _COPIED:
        connection.write_soon(head + body)
    elif (transport := connection.transport) is not None:
        _write_all(transport, (head, body))


def _head(status: HTTPStatus, told: str, size: int, budget: str) -> bytes:
    # The Content-Length of a 304 would have to be that of the 200 (RFC 9110, section 8.6), so it is omitted.
    length = "" if status is NOT_MODIFIED else f"Content-Length: {size}\r\n"
    common = common_header_lines(budget)
    text = f"{_BEGINNING[status]}{told}{common}{length}Date: {rfc822_formatted_time()}\r\n\r\n"
    return text.encode()


def _write_all(transport: asyncio.Transport, parts: tuple[Body, ...]) -> None:
    if _UNPAUSED:
        transport.write(b"".join(parts))
    else:
        transport.writelines(parts)


class _Sent(web.StreamResponse):
    """The object that aiohttp gets for a response that was already sent; shared by all requests."""

    @property
    def prepared(self) -> bool:
        """Whether the response has been started: always."""
        return True

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection is kept open after the response: always."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Wait until the client has accepted enough of it; only then is the next request started."""
        await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the response is complete."""


_BEGINNING: Final = {
    status: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in (OK, PARTIAL, NOT_MODIFIED)
}
_SENT: Final = {status: _Sent(status=status) for status in _BEGINNING}
