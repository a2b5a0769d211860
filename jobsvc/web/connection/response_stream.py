"""Write responses in ways for which aiohttp has no documented interface.

Code outside this package uses these functions instead of aiohttp's writer and protocol objects.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_writer import StreamWriter

Buffer = bytes | bytearray | memoryview

_WRITELINES_IS_UNBOUNDED: Final = (3, 12) <= sys.version_info < (3, 12, 9) or (
    (3, 13) <= sys.version_info < (3, 13, 2)
)
"""Whether asyncio's writelines() buffers without limit for a slow client (CVE-2024-12254)."""


class ResponseStream:
    """A response whose body is written in pieces."""

    __slots__ = ("_request", "_writer")

    def __init__(self, request: web.BaseRequest, writer: StreamWriter) -> None:
        self._request = request
        self._writer = writer

    @classmethod
    async def start(cls, request: web.BaseRequest, response: web.StreamResponse) -> ResponseStream:
        """Start a response; its head is sent with the first piece of its body, or by `send_head`."""
        return cls(request, cast(StreamWriter, await response.prepare(request)))

    def send_head(self) -> None:
        """Send the head before the body."""
        self._writer.send_headers()

    async def write(self, data: Buffer) -> None:
        """Write a piece; wait if the client has not accepted enough of the previous pieces."""
        await self._writer.write(data)

    async def write_undrained(self, data: Buffer) -> None:
        """Write a piece without waiting for the client."""
        await self._writer.write(data, drain=False)

    async def drain(self) -> None:
        """Wait until the client has accepted enough. Raises ConnectionError if it is gone."""
        await self._writer.drain()

    @property
    def paused(self) -> bool:
        """Whether the client has to accept data before more is written."""
        return is_write_paused(self._request)


class SentResponse(web.StreamResponse):
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
        await drain(request)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the response is complete."""


def is_write_paused(request: web.BaseRequest) -> bool:
    """Return whether the client has to accept data before more is written."""
    return request.protocol.writing_paused


async def drain(request: web.BaseRequest) -> None:
    """Wait until the client has accepted enough. Raises ConnectionError if it is gone."""
    await request.writer.drain()


async def send_continue(request: web.BaseRequest) -> None:
    """Send 100 Continue (RFC 9110, section 15.2.1)."""
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # not the response: a problem can still be sent


def write_parts(transport: asyncio.Transport, parts: Iterable[Buffer]) -> None:
    """Write several buffers, without copying them where that is safe."""
    if _WRITELINES_IS_UNBOUNDED:
        transport.write(b"".join(parts))
    else:
        transport.writelines(parts)
