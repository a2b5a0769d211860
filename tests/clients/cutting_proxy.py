"""A TCP proxy that cuts its first connections after a number of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from tests.clients.loopback_server import LoopbackServer, close


class CuttingProxy(LoopbackServer):
    """Relays bytes; a cut connection is closed as by a service that dies."""

    def __init__(self, upstream: int, cuts: Sequence[int]) -> None:
        """Relay to the port `upstream`; the n-th connection is cut after `cuts[n]` bytes, later
        ones never.
        """
        super().__init__()
        self.cut_count = 0
        """Number of connections that were cut."""
        self.upstream = upstream
        """The port to which later connections are relayed."""
        self._limits = cuts

    async def serve_connection(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        budget = self._limits[number] if number < len(self._limits) else None
        answers, requests = await asyncio.open_connection("127.0.0.1", self.upstream)
        there = asyncio.ensure_future(_relay(reader, requests, None))
        there.add_done_callback(lambda _: requests.close())
        try:
            if await _relay(answers, writer, budget):
                self.cut_count += 1
        finally:
            there.cancel()
            writer.close()
            await close(requests)


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
