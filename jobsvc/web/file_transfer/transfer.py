"""Send one file over one connection, by the epoll sender or in slices in the data pool's threads.

A client that accepts nothing uses descriptors but no thread. If the client disconnects, its place in the pool
is released, even if the thread is stuck in storage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from jobsvc.observe.download_log import Outcome
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.sendfile.file_sender import RESUMABLE, FileSender, SendResult, StopReason
from jobsvc.web.file_transfer.throttle import Throttle
from jobsvc.web.file_transfer.transfer_state import TransferAborted, TransferState

DRAIN_WAIT_HUNDREDTHS: Final = 20
"""Maximum wait for the thread of an aborted transfer, in hundredths of a second."""
READ_CHECK_INTERVAL_S: Final = 0.001
MAX_READ_CHECK_INTERVAL_S: Final = 1.0
"""Seconds between two checks of what the client has read; doubled from the first value up to the second."""
DISCONNECT_CHECK_S: Final = 2.0
"""Seconds after which an unfinished slice checks whether the client is still connected."""


class FileTransfer:
    """One transfer in progress.

    While a thread uses the file sender it is lent: the executor closes it if this transfer is canceled.
    """

    def __init__(
        self,
        disk: StorageExecutor,
        sender: FileSender,
        shipment: TransferState,
        request: web.Request,
        *,
        send_timeout: float,
        pace: Throttle | None,
    ) -> None:
        self._disk = disk
        self._sender = sender
        self._state = shipment
        self._request = request
        self._send_timeout = send_timeout
        self._throttle = pace
        self._is_lent = False
        self._send_call = False
        """Whether the epoll sender has the file sender, rather than the data pool."""
        self._watch: asyncio.TimerHandle

    def close(self) -> None:
        """Close the file sender, unless it is lent: then the executor closes it."""
        if not self._is_lent:
            self._disk.close_later(self._sender)

    async def run(self, writer: AbstractStreamWriter) -> None:
        """Send the head and all segments.

        Raises TransferAborted or StorageUnavailable, TimeoutError if the client accepts nothing for too long,
        ConnectionError if it is gone.
        """
        writer.send_headers()
        await self._emptied(writer)
        for segment in self._state.segments:
            if isinstance(segment, bytes):
                await self._bytes(writer, segment)
            else:
                await self._file(segment.start, segment.stop)

    async def _bytes(self, writer: AbstractStreamWriter, data: bytes) -> None:
        while data:
            count = await self._acquire(len(data))
            await writer.write(data[:count])
            await self._emptied(writer)
            self._consume(count)
            data = data[count:]

    async def wait_thread(self) -> None:
        """Wait at most 0.2 s for the thread of an aborted transfer, then record how much was sent."""
        for _ in range(DRAIN_WAIT_HUNDREDTHS):
            if not self._sender.in_use:
                break
            await asyncio.sleep(0.01)
        self._state.sent = self._sender.sent

    async def _emptied(self, writer: AbstractStreamWriter) -> None:
        await self._wait_with_progress(writer.drain)

    async def _wait_with_progress(
        self, wait: Callable[[], Awaitable[object]], left: Callable[[], int] | None = None
    ) -> None:
        """Wait for the client; raises TimeoutError if it accepts nothing for `send_timeout` seconds.

        A slow client does not time out as long as it accepts something. `left` returns the number of bytes
        that it has not accepted yet.
        """
        left = left or self._sender.queues.unacked
        while True:
            before = left()
            try:
                async with asyncio.timeout(self._send_timeout):
                    await wait()
                    return
            except TimeoutError:
                # If a thread uses the file sender, the delay is due to storage, not to the client.
                if left() >= before and not self._sender.in_use:
                    raise

    async def _file(self, start: int, stop: int) -> None:
        while start < stop:
            turn = await self._turn(start, start + await self._acquire(stop - start))
            start += turn.sent
            self._state.sent = self._sender.sent
            self._consume(turn.sent)
            if turn.stop_reason is StopReason.WOULD_BLOCK and not self._disk.accepts_send(self._sender):
                await self._wait_with_progress(self._writable)
            elif turn.stop_reason is StopReason.PEER_UNREAD:
                await self._wait_with_progress(self._wait_peer_read, self._sender.unread_by_peer)
            elif turn.stop_reason not in RESUMABLE:
                raise TransferAborted(_OUTCOMES[turn.stop_reason]) from turn.error

    async def _acquire(self, left: int) -> int:
        return left if self._throttle is None else await self._throttle.acquire(left)

    def _consume(self, count: int) -> None:
        if self._throttle is not None:
            self._throttle.consume(count)

    async def _turn(self, start: int, stop: int) -> SendResult:
        self._is_lent = True
        async with asyncio.timeout(None) as wait:
            self._look_later(wait)
            try:
                turn = await self._sent(start, stop)
            finally:
                self._watch.cancel()
        self._is_lent = False
        return turn

    async def _sent(self, start: int, stop: int) -> SendResult:
        key, sender = self._state.key, self._sender
        self._send_call = self._disk.accepts_send(sender)
        if not self._send_call:
            return await self._disk.run_data(key, lambda: sender.send_slice(start, stop), sender)
        carried = self._disk.send(sender, start, stop)
        try:
            await self._wait_with_progress(lambda: asyncio.wait((carried,)), sender.unacked_bytes)
            return carried.result()
        finally:
            carried.cancel()

    def _look_later(self, wait: asyncio.Timeout) -> None:
        loop, sent = asyncio.get_running_loop(), self._sender.sent
        self._watch = loop.call_later(DISCONNECT_CHECK_S, self._check_disconnect, wait, sent)

    def _check_disconnect(self, wait: asyncio.Timeout, sent: int) -> None:
        """Stop waiting for a stuck thread once the client has disconnected: its retry needs the slot.

        A half-closed client may still be reading, but as no data arrives it has most likely given up.
        """
        sender = self._sender
        hangs = sender.sent == sent and (sender.in_use or not self._send_call)
        if hangs and (self._request.transport is None or sender.closed_by_client()):
            wait.reschedule(0)
        else:
            self._look_later(wait)

    async def _wait_peer_read(self) -> None:
        """Wait until the client has read enough; the interval between two checks doubles each time."""
        pause = READ_CHECK_INTERVAL_S
        while self._sender.has_unread_pages():
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_READ_CHECK_INTERVAL_S)

    async def _writable(self) -> None:
        """Wait until the socket buffer has room for more than a few bytes."""
        loop, descriptor = asyncio.get_running_loop(), self._sender.socket_fd
        ready = loop.create_future()
        loop.add_writer(descriptor, _resolve, ready)
        try:
            await ready
        finally:
            loop.remove_writer(descriptor)


_OUTCOMES = {
    StopReason.DISCONNECTED: Outcome.CLIENT_GONE,
    StopReason.FILE_CHANGED: Outcome.TRUNCATED,
    StopReason.STORAGE_ERROR: Outcome.STORAGE_ERROR,
}


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
