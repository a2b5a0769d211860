"""A minimal HTTP/1.1 client over a socket: requests are sent unmodified, and responses are parsed byte by
byte.

A client library would correct the requests under test, and the responses too.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson
from multidict import CIMultiDict

Fields = Iterable[tuple[str, str]]

RESPONSE_TIMEOUT_S: Final = 15.0
"""For one response."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One response as received."""

    version: str
    status: int
    headers: CIMultiDict[str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code; fails if the response is not a problem document of its own status."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        problem = self.json()
        assert problem["status"] == self.status
        assert problem["type"] == f"urn:jobsvc:problem:{problem['code']}"
        assert problem["requestId"] == self.headers["X-Request-Id"]
        assert problem.keys() == {"type", "title", "status", "detail", "code", "requestId"}
        return str(problem["code"])

    @property
    def content_length(self) -> int:
        """Content-Length."""
        return int(self.headers["Content-Length"])


class IncompleteAnswer(Exception):
    """The connection ended within a response; `answer` is what arrived, None without a complete head."""

    def __init__(self, answer: Answer | None) -> None:
        super().__init__(
            "nothing" if answer is None else f"{len(answer.body)} of {answer.content_length} bytes"
        )
        self.answer = answer


def request(
    method: str,
    target: str,
    fields: Fields = (),
    *,
    token: str | None = None,
    version: str = "1.1",
    body: bytes = b"",
) -> bytes:
    """Build a request unmodified; Host and Content-Length are added where they are needed."""
    lines = [f"{method} {target} HTTP/{version}"]
    if version == "1.1":
        lines.append("Host: jobs.example")
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    lines += [f"{name}: {value}" for name, value in fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


class Connection:
    """One connection to a service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(
        cls,
        port: int,
        *,
        receive_buffer: int | None = None,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Connect; with a small `receive_buffer` (bytes) the service soon notices a client that does not
        read. `tls` is for a proxy whose certificate is for localhost.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        plain = socket.socket(family, socket.SOCK_STREAM)
        plain.settimeout(0)
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        limit = 1 << 16 if receive_buffer is None else receive_buffer
        try:
            await asyncio.get_running_loop().sock_connect(plain, (host, port))
            name = None if tls is None else "localhost"
            return cls(*await asyncio.open_connection(sock=plain, limit=limit, ssl=tls, server_hostname=name))
        except BaseException:
            plain.close()
            raise

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, method: str = "GET") -> Answer:
        """Read the next response, to a request of that method; IncompleteAnswer."""
        async with asyncio.timeout(RESPONSE_TIMEOUT_S):
            version, status, headers = await self.head()
            bare = method == "HEAD" or status in {204, 304}
            length = 0 if bare else int(headers["Content-Length"])
            body = await self.read(length)
        answer = Answer(version, status, headers, body)
        if len(body) < length:
            raise IncompleteAnswer(answer)
        return answer

    async def head(self) -> tuple[str, int, CIMultiDict[str]]:
        """Read the head of a response; IncompleteAnswer if none arrives."""
        try:
            lines = [await self._line()]
            while lines[-1]:
                lines.append(await self._line())
        except (ConnectionError, asyncio.IncompleteReadError) as ended:
            raise IncompleteAnswer(None) from ended
        version, status, _ = lines[0].split(" ", 2)
        headers: CIMultiDict[str] = CIMultiDict()
        for line in lines[1:-1]:
            name, colon, value = line.partition(":")
            assert colon, f"no field: {line!r}"
            assert name == name.strip(), f"blanks around a name: {line!r}"
            headers.add(name, value.strip(" \t"))
        return version.removeprefix("HTTP/"), int(status), headers

    async def read(self, length: int) -> bytes:
        """Read this many bytes; fewer if the connection ends before."""
        pieces = []
        with suppress(ConnectionError):
            while length > 0 and (piece := await self.reader.read(min(length, 1 << 20))):
                pieces.append(piece)
                length -= len(piece)
        return b"".join(pieces)

    async def ended(self) -> bool:
        """Wait until the other side closes, and return whether it did so without a further byte."""
        async with asyncio.timeout(RESPONSE_TIMEOUT_S):
            try:
                return not await self.reader.read(1)
            except ConnectionError:
                return True

    async def ask(
        self,
        method: str,
        target: str,
        fields: Fields = (),
        *,
        token: str | None = None,
        version: str = "1.1",
        body: bytes = b"",
    ) -> Answer:
        """Send a request and read its response."""
        self.send(request(method, target, fields, token=token, version=version, body=body))
        return await self.answer(method)

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    async def reset(self) -> None:
        """Close without a FIN: everything that the service sends from now on is answered by a reset."""
        plain = self.writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()
        await self.close()

    async def _line(self) -> str:
        line = await self.reader.readuntil(b"\r\n")
        assert b"\n" not in line[:-2], f"a bare line feed: {line!r}"
        assert b"\r" not in line[:-2], f"a bare carriage return: {line!r}"
        return line[:-2].decode("latin-1")


@asynccontextmanager
async def connection(
    port: int, *, receive_buffer: int | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Connection]:
    """Open a connection during a block."""
    opened = await Connection.open(port, receive_buffer=receive_buffer, host=host)
    try:
        yield opened
    finally:
        await opened.close()


def concrete(path: str) -> str:
    """Return the path of the OpenAPI document with the names of a job that `make_job` writes."""
    return path.format(id="job-1", name="film.mp4", output="main", path="film.mp4")
