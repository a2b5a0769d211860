"""An HTTP/1.1 proxy in front of the service that applies faults to requests, responses and connections.

It parses heads and frames of bodies itself, because a library would refuse to send what a fault produces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import TypeAlias

from tests.clients.body_pieces import PIECE, Cut, pieces_of
from tests.clients.loopback_server import LoopbackServer, close


@dataclass(slots=True)
class Message:
    """The head of a request or a response."""

    first_line: str
    fields: list[tuple[str, str]]

    def get(self, name: str) -> str | None:
        """Return the first field with a name."""
        return next((value for key, value in self.fields if key.lower() == name.lower()), None)

    def remove(self, *names: str) -> None:
        unwanted = {name.lower() for name in names}
        self.fields = [each for each in self.fields if each[0].lower() not in unwanted]

    def set(self, name: str, value: object) -> None:
        """Replace a field, or add it."""
        self.remove(name)
        self.fields.append((name, str(value)))

    def encode(self) -> bytes:
        lines = [self.first_line, *(f"{name}: {value}" for name, value in self.fields), "", ""]
        return "\r\n".join(lines).encode("latin-1")


@dataclass(slots=True)
class Answer(Message):
    """A response; its fields decide how the body is framed: Content-Length, chunks, or until the end."""

    body: AsyncIterator[bytes]
    has_body: bool = True
    """False for HEAD, 204 and 304."""
    close: bool = False
    """Whether the connection is closed afterwards, without announcement."""

    @property
    def status(self) -> int:
        return int(self.first_line.split(" ")[1])

    @property
    def length(self) -> int:
        """Content-Length; 0 without one."""
        return int(self.get("Content-Length") or 0)

    @property
    def chunked(self) -> bool:
        return self.has_body and self.get("Transfer-Encoding") == "chunked"


Forward: TypeAlias = Callable[[], Awaitable[Answer]]


@dataclass(slots=True)
class Exchange:
    """One request, and what is known of its response."""

    request: Message
    random: Random
    replace_output: Callable[[], Awaitable[object]]
    """Replaces the requested file, as the test decides."""
    forward: Forward
    """Sends the request to the service and returns its response."""
    faults: list[str] = field(default_factory=list)
    """Names of the faults that were applied."""
    sent: int = 0
    """Bytes of the body that were sent to the client."""
    content_range: str | None = None
    """Content-Range that was sent."""

    @property
    def target(self) -> str:
        return self.request.first_line.split(" ")[1]

    @property
    def is_file(self) -> bool:
        """Whether the response is a file or an archive, and not a JSON document or a stream."""
        path = self.target.partition("?")[0]
        return "/files/" in path or "/archive." in path or path.endswith("/download") or "/download/" in path


Fault: TypeAlias = Callable[[Exchange], Awaitable[Answer]]


class FaultyProxy(LoopbackServer):
    """Applies at most one of `faults` to each request, drawn by a seed, until `budget` are spent.

    Those of `always` are applied to each request.
    """

    def __init__(
        self,
        upstream: int,
        *,
        seed: int = 0,
        faults: Sequence[Fault] = (),
        budget: int = 1 << 30,
        share: float = 1.0,
        always: Iterable[Fault] = (),
        replace_output: Callable[[], Awaitable[object]] | None = None,
        rate: float = float("inf"),
    ) -> None:
        """Relay to the port `upstream`; while the budget lasts, `share` of the requests get a fault.

        `rate`: bytes a second of each connection. Then hardly any are in the buffers of the kernel, so that
        what was sent was received.
        """
        super().__init__()
        self.exchanges: list[Exchange] = []
        """All requests in the order of their arrival."""
        self.on_sent: Callable[[Exchange], None] = lambda _: None
        """Called after each piece of a body."""
        self.budget = budget
        self._upstream = upstream
        self._random = Random(seed)  # noqa: S311 - no secret
        self._faults = faults
        self._share = share
        self._always = list(always)
        self.replace_output = replace_output or _do_nothing
        self._rate = rate

    async def serve_connection(
        self,
        number: int,  # noqa: ARG002 - all connections are alike
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            while (request := await read_head(reader)) is not None:
                body = await reader.readexactly(int(request.get("Content-Length") or 0))
                if not await self._exchange(request, body, writer):
                    break
        except Cut:
            writer.transport.abort()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass

    async def _exchange(self, request: Message, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Relay one request and its response; return whether the connection is used again."""
        answers, requests = await asyncio.open_connection("127.0.0.1", self._upstream, limit=PIECE)
        try:

            async def forward() -> Answer:
                requests.write(request.encode() + body)
                answer = await read_answer(answers, is_head=request.first_line.startswith("HEAD "))
                exchange.content_range = answer.get("Content-Range")
                return answer

            exchange = Exchange(request, self._random, self.replace_output, forward)
            self.exchanges.append(exchange)
            answer = await self._apply_faults(exchange)
            writer.write(answer.encode())
            async for piece in answer.body:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
                await writer.drain()
                await asyncio.sleep(len(piece) / self._rate)
                exchange.sent += len(piece)
                self.on_sent(exchange)
            if answer.chunked:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
            return not answer.close
        finally:
            await close(requests)

    async def _apply_faults(self, exchange: Exchange) -> Answer:
        chosen = list(self._always)
        if self._faults and self.budget > 0 and self._random.random() < self._share:
            self.budget -= 1
            chosen.append(self._random.choice(self._faults))
        forward = exchange.forward
        for fault in chosen:
            exchange.faults.append(getattr(fault, "__name__", str(fault)))
            forward = partial(fault, replace(exchange, forward=forward))
        return await forward()


async def _do_nothing() -> None:
    pass


async def read_head(reader: asyncio.StreamReader) -> Message | None:
    """Read the head of a message; None at the end of the connection."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as ended:
        if ended.partial:
            raise
        return None
    first_line, *lines = text[:-4].split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Message(first_line, [(name, value.strip()) for name, _, value in pairs])


async def read_answer(reader: asyncio.StreamReader, *, is_head: bool) -> Answer:
    """Read the head of a response; its body is read as it is sent on. Cut if there is none."""
    if (head := await read_head(reader)) is None:
        raise Cut
    answer = Answer(head.first_line, head.fields, pieces_of(b""))
    if is_head or answer.status in {204, 304}:
        answer.has_body = False
    elif answer.chunked:
        answer.body = _read_chunks(reader)
    else:
        answer.body = _read_bytes(reader, answer.length)
    return answer


async def _read_bytes(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    while length > 0:
        if not (piece := await reader.read(min(length, PIECE))):
            raise Cut  # the service aborted the response
        length -= len(piece)
        yield piece


async def _read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        async for piece in _read_bytes(reader, size):
            yield piece
        await reader.readexactly(2)
    await reader.readexactly(2)


@asynccontextmanager
async def faulty_proxy(proxy: FaultyProxy) -> AsyncIterator[FaultyProxy]:
    """Run a proxy during a block."""
    async with proxy.serving():
        yield proxy
