"""One file's bytes on their way down a connection: with those of others, or by turns on Disk's threads.

A client that takes nothing costs descriptors and no thread; one that went frees its thread's place at once,
also where that thread hangs in the storage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from jobsvc.observe.download_log import Outcome
from jobsvc.storage.executor import Disk
from jobsvc.storage.sendfile.file_sender import UNDER_WAY, Conduit, Halt, Turn
from jobsvc.web.file_transfer.throttle import Pace
from jobsvc.web.file_transfer.transfer_state import Interrupted, Shipment

SETTLING: Final = 20
"""Hundredths of a second."""
LOOK: Final = 0.001
LOOK_RARELY: Final = 1.0
"""Seconds between two looks at what a client has read."""
PRESENCE: Final = 2.0
"""Seconds after which a turn that is not over asks whether the client still is there."""


class Stream:
    """One transfer under way. While a thread has the conduit it is lent: the pool closes it if we leave."""

    def __init__(
        self,
        disk: Disk,
        conduit: Conduit,
        shipment: Shipment,
        request: web.Request,
        *,
        send_timeout: float,
        pace: Pace | None,
    ) -> None:
        self._disk = disk
        self._conduit = conduit
        self._shipment = shipment
        self._request = request
        self._send_timeout = send_timeout
        self._pace = pace
        self._lent = False
        self._carried = False
        """Whether Ferry has it."""
        self._watch: asyncio.TimerHandle

    def close(self) -> None:
        """Give the conduit back."""
        if not self._lent:
            self._disk.release(self._conduit)

    async def run(self, writer: AbstractStreamWriter) -> None:
        """Send it all; Interrupted, StorageUnavailable, TimeoutError, ConnectionError."""
        writer.send_headers()
        await self._emptied(writer)
        for segment in self._shipment.segments:
            if isinstance(segment, bytes):
                await self._bytes(writer, segment)
            else:
                await self._file(segment.start, segment.stop)

    async def _bytes(self, writer: AbstractStreamWriter, data: bytes) -> None:
        while data:
            count = await self._granted(len(data))
            await writer.write(data[:count])
            await self._emptied(writer)
            self._went(count)
            data = data[count:]

    async def settled(self) -> None:
        """Wait for the thread that was left in its turn, unless it hangs; what was sent is known then."""
        for _ in range(SETTLING):
            if not self._conduit.moving:
                break
            await asyncio.sleep(0.01)
        self._shipment.sent = self._conduit.sent

    async def _emptied(self, writer: AbstractStreamWriter) -> None:
        await self._patiently(writer.drain)

    async def _patiently(
        self, wait: Callable[[], Awaitable[object]], left: Callable[[], int] | None = None
    ) -> None:
        """Wait for the client; TimeoutError when it accepted nothing for too long, however slow it may be.

        `left` counts the bytes that it has yet to accept.
        """
        left = left or self._conduit.backlog.queued
        while True:
            before = left()
            try:
                async with asyncio.timeout(self._send_timeout):
                    await wait()
                    return
            except TimeoutError:
                # Where a thread has it, it is the storage that keeps him waiting.
                if left() >= before and not self._conduit.moving:
                    raise

    async def _file(self, start: int, stop: int) -> None:
        while start < stop:
            turn = await self._turn(start, start + await self._granted(stop - start))
            start += turn.sent
            self._shipment.sent = self._conduit.sent
            self._went(turn.sent)
            if turn.halt is Halt.CLIENT_FULL and not self._disk.carries(self._conduit):
                await self._patiently(self._writable)
            elif turn.halt is Halt.CLIENT_BEHIND:
                await self._patiently(self._caught_up, self._conduit.waiting)
            elif turn.halt not in UNDER_WAY:
                raise Interrupted(_OUTCOMES[turn.halt]) from turn.fault

    async def _granted(self, left: int) -> int:
        return left if self._pace is None else await self._pace.granted(left)

    def _went(self, count: int) -> None:
        if self._pace is not None:
            self._pace.went(count)

    async def _turn(self, start: int, stop: int) -> Turn:
        self._lent = True
        async with asyncio.timeout(None) as wait:
            self._look_later(wait)
            try:
                turn = await self._sent(start, stop)
            finally:
                self._watch.cancel()
        self._lent = False
        return turn

    async def _sent(self, start: int, stop: int) -> Turn:
        key, conduit = self._shipment.key, self._conduit
        self._carried = self._disk.carries(conduit)
        if not self._carried:
            return await self._disk.data(key, lambda: conduit.send(start, stop), conduit)
        carried = self._disk.carry(conduit, start, stop)
        try:
            await self._patiently(lambda: asyncio.wait((carried,)), conduit.unaccepted)
            return carried.result()
        finally:
            carried.cancel()

    def _look_later(self, wait: asyncio.Timeout) -> None:
        loop, sent = asyncio.get_running_loop(), self._conduit.sent
        self._watch = loop.call_later(PRESENCE, self._see_client, wait, sent)

    def _see_client(self, wait: asyncio.Timeout, sent: int) -> None:
        """Wait for a hung thread no longer than there is a client, who may be back and needs the slot.

        Who has closed his side may still listen; but here nothing comes, and he will mostly have given up.
        """
        conduit = self._conduit
        hangs = conduit.sent == sent and (conduit.moving or not self._carried)
        if hangs and (self._request.transport is None or conduit.closed_by_client()):
            wait.reschedule(0)
        else:
            self._look_later(wait)

    async def _caught_up(self) -> None:
        """Wait until the client has read enough; looked at less and less often where he takes his time."""
        pause = LOOK
        while self._conduit.behind():
            await asyncio.sleep(pause)
            pause = min(pause * 2, LOOK_RARELY)

    async def _writable(self) -> None:
        """Wait until there is room for more than a little."""
        loop, descriptor = asyncio.get_running_loop(), self._conduit.socket_fd
        ready = loop.create_future()
        loop.add_writer(descriptor, _resolve, ready)
        try:
            await ready
        finally:
            loop.remove_writer(descriptor)


_OUTCOMES = {
    Halt.CLIENT_GONE: Outcome.CLIENT_GONE,
    Halt.CHANGED: Outcome.TRUNCATED,
    Halt.FAULT: Outcome.STORAGE_ERROR,
}


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
