"""A way to a service that breaks: a TCP proxy that cuts its first connections after so many bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress


class CuttingProxy:
    """Hands bytes on; what is cut is closed on the client's side as a service that dies closes it."""

    def __init__(self, upstream: int, cuts: Sequence[int]) -> None:
        """Lead to the port `upstream`; the n-th connection is cut after `cuts[n]` bytes, later ones never."""
        self.port = 0
        self.opened = 0
        """Connections so far."""
        self.cut = 0
        """Those of them that were cut."""
        self._upstream = upstream
        self._cuts = cuts
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen on a free port of loopback until the block ends."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        budget = self._cuts[self.opened] if self.opened < len(self._cuts) else None
        self.opened += 1
        task = asyncio.ensure_future(self._join(reader, writer, budget))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None
    ) -> None:
        answers, requests = await asyncio.open_connection("127.0.0.1", self._upstream)
        there = asyncio.ensure_future(_hand_on(reader, requests, None))
        there.add_done_callback(lambda _: requests.close())
        try:
            if await _hand_on(answers, writer, budget):
                self.cut += 1
        finally:
            there.cancel()
            for side in (writer, requests):
                side.close()
            for side in (writer, requests):
                with suppress(ConnectionError):
                    await side.wait_closed()


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None) -> bool:
    """Hand bytes on until there are no more, or the budget is spent; says whether that was it."""
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16 if budget is None else min(1 << 16, budget)):
            writer.write(data)
            await writer.drain()
            if budget is not None:
                budget -= len(data)
                if budget == 0:
                    return True
    return False


@asynccontextmanager
async def cutting(upstream: int, *cuts: int) -> AsyncIterator[CuttingProxy]:
    """Have a proxy for the length of a block."""
    proxy = CuttingProxy(upstream, cuts)
    async with proxy.running():
        yield proxy
