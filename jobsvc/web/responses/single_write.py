"""An answer whose body is in memory goes out as one write: what aiohttp does for any, done for the many.

Polls and small ranges are most of the traffic; the general way costs them a third more processor time. For
whatever is not the plain case (HEAD, HTTP/1.0, a connection that ends) the general way is taken.
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
from jobsvc.web.ratelimit import request_budget
from jobsvc.web.responses.common_headers import common_header_lines

# A member of an enumeration takes a third of a microsecond to look up.
OK: Final = HTTPStatus.OK
PARTIAL: Final = HTTPStatus.PARTIAL_CONTENT
NOT_MODIFIED: Final = HTTPStatus.NOT_MODIFIED

_UNPAUSED: Final = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)
"""Whether asyncio's writelines lets any number of bytes wait for a client (CVE-2024-12254)."""
_COPIED: Final = 4096
"""Bytes; a body up to this size is cheaper copied behind its head than handed over beside it."""


def lines(fields: Mapping[str, str]) -> str:
    """Write fields as lines of a head; they are ours alone: nothing in them came from a client."""
    return "".join([f"{name}: {value}\r\n" for name, value in fields.items()])


def write_response(
    request: web.Request, status: HTTPStatus, told: str, body: Body | tuple[bytes, ...]
) -> web.StreamResponse | None:
    """Send a 200, 206 or 304 at once, sealed; None where it has to go the general way.

    `told` is what `lines` wrote of its fields; Content-Length and Date are added here. A body in pieces is
    sent without a copy of it.
    """
    plain = request.method == "GET" and request.version == HttpVersion11 and request.keep_alive
    if not plain or (transport := request.transport) is None:
        return None
    if not isinstance(body, tuple):
        write_fast(cast(Connection, request.protocol), status, told, body, request_budget.lines(request))
    elif len(body) == 1:
        write_fast(cast(Connection, request.protocol), status, told, body[0], request_budget.lines(request))
    else:
        head = _head(status, told, sum(map(len, body)), request_budget.lines(request))
        _write_all(transport, (head, *body))
    return _SENT[status]


def write_fast(connection: Connection, status: HTTPStatus, told: str, body: Body, budget: str) -> None:
    """Write such an answer to a plain GET; `budget` is what `request_budget.lines` gives."""
    head = _head(status, told, len(body), budget)
    if len(body) <= _COPIED:
        connection.write_soon(head + body)
    elif (transport := connection.transport) is not None:
        _write_all(transport, (head, body))


def _head(status: HTTPStatus, told: str, size: int, budget: str) -> bytes:
    # A 304 tells no length but that of the 200 that it stands for (RFC 9110, section 8.6), so it tells none.
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
    """What is left to tell the framework of an answer that has gone out whole; the same for all of them."""

    @property
    def prepared(self) -> bool:
        """Whether the answer has begun."""
        return True

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection outlives the answer."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Wait until the client has taken enough of it: what it asks for next is not begun before."""
        await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Have nothing left to end."""


_BEGINNING: Final = {
    status: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in (OK, PARTIAL, NOT_MODIFIED)
}
_SENT: Final = {status: _Sent(status=status) for status in _BEGINNING}
