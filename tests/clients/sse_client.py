"""A minimal client of server-sent events over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import orjson
from multidict import CIMultiDict

from tests.clients.raw_http import Connection, Fields, request
from tests.programs.service_runner import Service

EVENT_TIMEOUT_S: Final = 10.0
"""For the next event."""


class Event(NamedTuple):
    """One event, as HTML (section 9.2) defines it."""

    name: str
    data: str
    id: str | None

    def json(self) -> Any:
        return orjson.loads(self.data)


class EventStream:
    """An event stream; `status` and `headers` are those of its head."""

    def __init__(self, link: Connection, status: int, headers: CIMultiDict[str]) -> None:
        self.link = link
        self.status = status
        self.headers = headers
        self.comments = 0
        self.retry: int | None = None
        self.last_event_id: str | None = None
        self.ended_cleanly = False
        self._buffer = b""
        self._chunked = headers.get("Transfer-Encoding") == "chunked"

    async def next(self, timeout_s: float = EVENT_TIMEOUT_S) -> Event | None:
        """Wait for the next event; None if the stream ends, cleanly or not."""
        async with asyncio.timeout(timeout_s):
            while True:
                block, found, rest = self._buffer.partition(b"\n\n")
                if found:
                    self._buffer = rest
                    if (event := self._parse(block.decode())) is not None:
                        return event
                elif not (data := await self._read_chunk()):
                    return None
                else:
                    self._buffer += data

    async def next_named(self, name: str, timeout_s: float = EVENT_TIMEOUT_S) -> Event:
        """Wait for the next event with that name and skip others."""
        while (event := await self.next(timeout_s)) is not None:
            if event.name == name:
                return event
        raise AssertionError(f"the stream ended without {name}")

    async def read_all(self) -> list[Event]:
        """Read to the end."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events

    def _parse(self, block: str) -> Event | None:
        name, event_id, lines = "message", None, []
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
                    event_id = value
                case "retry":
                    self.retry = int(value)
                case "data":
                    lines.append(value)
                case _:
                    raise AssertionError(f"no field of events: {line!r}")
        self.last_event_id = event_id or self.last_event_id
        return Event(name, "\n".join(lines), event_id) if lines else None

    async def _read_chunk(self) -> bytes:
        try:
            if not self._chunked:
                return await self.link.reader.read(1 << 16)
            size = int(await self.link.reader.readuntil(b"\r\n"), 16)
            data = await self.link.reader.readexactly(size + 2)
        except (ConnectionError, asyncio.IncompleteReadError):
            return b""
        self.ended_cleanly = size == 0
        return data[:-2]


@asynccontextmanager
async def open_event_stream(
    service: Service,
    target: str,
    fields: Fields = (),
    *,
    token: str | None = "",
    last_event_id: str | None = None,
    receive_buffer: int | None = None,
    version: str = "1.1",
) -> AsyncIterator[EventStream]:
    """Open a stream during a block; `last_event_id` is sent as Last-Event-ID."""
    async with service.connect(receive_buffer=receive_buffer) as link:
        all_fields = [*fields, *([("Last-Event-ID", last_event_id)] if last_event_id is not None else [])]
        bearer = service.token if token == "" else token
        link.send(request("GET", target, all_fields, token=bearer, version=version))
        async with asyncio.timeout(EVENT_TIMEOUT_S):
            _, status, headers = await link.head()
        yield EventStream(link, status, headers)
