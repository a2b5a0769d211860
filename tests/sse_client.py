"""Server-sent events as a client gets them: read off the wire by hand, as the other answers are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import orjson
from multidict import CIMultiDict

from tests.raw_http import Connection, Fields, request
from tests.service_runner import Service

PATIENCE: Final = 10.0
"""Seconds for the next event."""


class Event(NamedTuple):
    """One event, as HTML (section 9.2) has a browser understand it."""

    name: str
    data: str
    place: str | None
    """Its id."""

    def json(self) -> Any:
        return orjson.loads(self.data)


class Stream:
    """One stream of events; `status` and `headers` are those of its head."""

    def __init__(self, link: Connection, status: int, headers: CIMultiDict[str]) -> None:
        self.link = link
        self.status = status
        self.headers = headers
        self.comments = 0
        self.retry: int | None = None
        self.ended_well = False
        self._rest = b""
        self._chunked = headers.get("Transfer-Encoding") == "chunked"

    async def next(self, patience: float = PATIENCE) -> Event | None:
        """Wait for the next event; None where the stream ends, well or broken off."""
        async with asyncio.timeout(patience):
            while True:
                block, found, rest = self._rest.partition(b"\n\n")
                if found:
                    self._rest = rest
                    if (event := self._understood(block.decode())) is not None:
                        return event
                elif not (data := await self._more()):
                    return None
                else:
                    self._rest += data

    async def named(self, name: str, patience: float = PATIENCE) -> Event:
        """Wait for the next event of that name, past others."""
        while (event := await self.next(patience)) is not None:
            if event.name == name:
                return event
        raise AssertionError(f"the stream ended without {name}")

    async def all(self) -> list[Event]:
        """Read to the end."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events

    def _understood(self, block: str) -> Event | None:
        name, place, lines = "message", None, []
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            assert "\r" not in line
            match field:
                case "":
                    self.comments += 1
                case "event":
                    name = value
                case "id":
                    place = value
                case "retry":
                    self.retry = int(value)
                case "data":
                    lines.append(value)
                case _:
                    raise AssertionError(f"no field of events: {line!r}")
        return Event(name, "\n".join(lines), place) if lines else None

    async def _more(self) -> bytes:
        try:
            if not self._chunked:
                return await self.link.reader.read(1 << 16)
            size = int(await self.link.reader.readuntil(b"\r\n"), 16)
            data = await self.link.reader.readexactly(size + 2)
        except (ConnectionError, asyncio.IncompleteReadError):
            return b""
        self.ended_well = size == 0
        return data[:-2]


@asynccontextmanager
async def listening(
    service: Service,
    target: str,
    fields: Fields = (),
    *,
    token: str | None = "",
    last: str | None = None,
    receive_buffer: int | None = None,
    version: str = "1.1",
) -> AsyncIterator[Stream]:
    """Have a stream for the length of a block; `last` is sent as Last-Event-ID."""
    async with service.connect(receive_buffer=receive_buffer) as link:
        asked = [*fields, *([("Last-Event-ID", last)] if last is not None else [])]
        bearer = service.token if token == "" else token
        link.send(request("GET", target, asked, token=bearer, version=version))
        async with asyncio.timeout(PATIENCE):
            _, status, headers = await link.head()
        yield Stream(link, status, headers)
