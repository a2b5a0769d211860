"""A TCP proxy that cuts its first connections after a number of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress


class CuttingProxy:
    """Relays bytes; a cut connection is closed as by a service that dies."""

    def __init__(self, upstream: int, cuts: Sequence[int]) -> None:
        """Relay to the port `upstream`; the n-th connection is cut after `cuts[n]` bytes, later
        ones never.
        """
        self.port = 0
        self.accepted_count = 0
        """Number of accepted connections."""
        self.cut_count = 0
        """Number of connections that were cut."""
        self._upstream = upstream
        self._limits = cuts
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
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
        budget = self._limits[self.accepted_count] if self.accepted_count < len(self._limits) else None
        self.accepted_count += 1
        task = asyncio.ensure_future(self._relay_connection(reader, writer, budget))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None
    ) -> None:
        answers, requests = await asyncio.open_connection("127.0.0.1", self._upstream)
        there = asyncio.ensure_future(_relay(reader, requests, None))
        there.add_done_callback(lambda _: requests.close())
        try:
            if await _relay(answers, writer, budget):
                self.cut_count += 1
        finally:
            there.cancel()
            for side in (writer, requests):
                side.close()
            for side in (writer, requests):
                with suppress(ConnectionError):
                    await side.wait_closed()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None) -> bool:
    """Relay bytes until the end, or until `limit` is reached; return whether the limit was reached."""
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16 if limit is None else min(1 << 16, limit)):
            writer.write(data)
            await writer.drain()
            if limit is not None:
                limit -= len(data)
                if limit == 0:
                    return True
    return False


@asynccontextmanager
async def cutting_proxy(upstream: int, *cuts: int) -> AsyncIterator[CuttingProxy]:
    """Run a proxy during a block."""
    proxy = CuttingProxy(upstream, cuts)
    async with proxy.serving():
        yield proxy
