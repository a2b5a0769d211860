"""Send one file over one connection, by the epoll sender or in slices in the data pool's threads.

A client that accepts nothing uses descriptors but no thread. If the client disconnects, its place in the pool
is released, even if the thread is stuck in storage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from jobsvc.observe.download_log import Outcome
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.sendfile.socket_sender import RESUMABLE, SendResult, SocketSender, StopReason
from jobsvc.web.connection.response_stream import ResponseStream
from jobsvc.web.file_transfer.throttle import Throttle
from jobsvc.web.file_transfer.transfer_state import TransferAborted, TransferState

THREAD_CHECKS: Final = 20
THREAD_CHECK_INTERVAL_S: Final = 0.01
"""How often, and in which interval, an aborted transfer checks whether its thread has ended."""
READ_CHECK_INTERVAL_S: Final = 0.001
MAX_READ_CHECK_INTERVAL_S: Final = 1.0
"""Seconds between two checks of what the client has read; doubled from the first value up to the second."""
DISCONNECT_CHECK_S: Final = 2.0
"""Seconds after which an unfinished slice checks whether the client is still connected."""


class FileTransfer:
    """One transfer in progress.

    While a thread uses the file sender, it is the executor that closes it if this transfer is canceled.
    """

    def __init__(
        self,
        disk: StorageExecutor,
        sender: SocketSender,
        state: TransferState,
        request: web.Request,
        *,
        send_timeout: float,
        throttle: Throttle | None,
    ) -> None:
        self._disk = disk
        self._sender = sender
        self._state = state
        self._request = request
        self._send_timeout = send_timeout
        self._throttle = throttle
        self._owned_by_executor = False
        self._in_epoll_sender = False
        """Whether the epoll sender has the file sender, rather than the data pool."""
        self._disconnect_timer: asyncio.TimerHandle

    async def run(self, writer: ResponseStream) -> None:
        """Send the head and all segments.

        Raises TransferAborted or StorageUnavailable, TimeoutError if the client accepts nothing for too long,
        ConnectionError if it is gone.
        """
        writer.send_head()
        await self._drain(writer)
        for segment in self._state.segments:
            if isinstance(segment, bytes):
                await self._send_bytes(writer, segment)
            else:
                await self._send_range(segment.start, segment.stop)

    async def _send_range(self, start: int, stop: int) -> None:
        """Send a range of the file in slices; between two, wait until the client can accept more."""
        while start < stop:
            result = await self._send_slice(start, start + await self._acquire(stop - start))
            start += result.sent
            self._state.sent = self._sender.sent
            self._consume(result.sent)
            if result.stop_reason is StopReason.WOULD_BLOCK and not self._disk.accepts_send(self._sender):
                # If the epoll sender sends the next slice, it waits for the socket itself.
                await self._wait_with_progress(self._writable)
            elif result.stop_reason is StopReason.PEER_UNREAD:
                await self._wait_with_progress(self._wait_peer_read, self._sender.unread_by_peer)
            elif result.stop_reason not in RESUMABLE:
                raise TransferAborted(_OUTCOMES[result.stop_reason]) from result.error

    async def _send_slice(self, start: int, stop: int) -> SendResult:
        """Send one slice; return how many bytes were sent and why it ended."""
        self._owned_by_executor = True
        async with asyncio.timeout(None) as wait:
            self._schedule_check(wait)
            try:
                result = await self._send(start, stop)
            finally:
                self._disconnect_timer.cancel()
        self._owned_by_executor = False
        return result

    async def _send(self, start: int, stop: int) -> SendResult:
        """Send by the epoll sender if it accepts the file sender, else in a thread of the data pool."""
        key, sender = self._state.key, self._sender
        self._in_epoll_sender = self._disk.accepts_send(sender)
        if not self._in_epoll_sender:
            return await self._disk.run_data(key, lambda: sender.send_slice(start, stop), sender)
        future = self._disk.send(sender, start, stop)
        try:
            await self._wait_with_progress(lambda: asyncio.wait((future,)), sender.remaining_bytes)
            return future.result()
        except BaseException:
            # If the result has arrived already, the epoll sender does not close the file sender.
            if not future.cancel() and future.exception() is None:
                self._owned_by_executor = False
            raise

    async def _send_bytes(self, writer: ResponseStream, data: bytes) -> None:
        while data:
            count = await self._acquire(len(data))
            await writer.write(data[:count])
            await self._drain(writer)
            self._consume(count)
            data = data[count:]

    async def _drain(self, writer: ResponseStream) -> None:
        await self._wait_with_progress(writer.drain)

    async def _wait_with_progress(
        self, wait: Callable[[], Awaitable[object]], unaccepted: Callable[[], int] | None = None
    ) -> None:
        """Wait for the client; raises TimeoutError if it accepts nothing for `send_timeout` seconds.

        A slow client does not time out as long as it accepts something. `unaccepted` returns the number of
        bytes that it has not accepted yet.
        """
        unaccepted = unaccepted or self._sender.queues.unacked
        while True:
            before = unaccepted()
            try:
                async with asyncio.timeout(self._send_timeout):
                    await wait()
                    return
            except TimeoutError:
                # If a thread uses the file sender, the delay is due to storage, not to the client.
                if unaccepted() >= before and not self._sender.in_use:
                    raise

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

    async def _acquire(self, remaining: int) -> int:
        return remaining if self._throttle is None else await self._throttle.acquire(remaining)

    def _consume(self, count: int) -> None:
        if self._throttle is not None:
            self._throttle.consume(count)

    def _schedule_check(self, wait: asyncio.Timeout) -> None:
        loop, sent = asyncio.get_running_loop(), self._sender.sent
        self._disconnect_timer = loop.call_later(DISCONNECT_CHECK_S, self._check_disconnect, wait, sent)

    def _check_disconnect(self, wait: asyncio.Timeout, sent: int) -> None:
        """Stop waiting for a stuck thread once the client has disconnected: its retry needs the slot.

        A half-closed client may still be reading, but as no data arrives it has most likely given up.
        """
        sender = self._sender
        hangs = sender.sent == sent and (sender.in_use or not self._in_epoll_sender)
        if hangs and (self._request.transport is None or sender.closed_by_client()):
            wait.reschedule(0)
        else:
            self._schedule_check(wait)

    async def wait_thread(self) -> None:
        """Wait at most 0.2 s for the thread of an aborted transfer, then record how much was sent."""
        for _ in range(THREAD_CHECKS):
            if not self._sender.in_use:
                break
            await asyncio.sleep(THREAD_CHECK_INTERVAL_S)
        self._state.sent = self._sender.sent

    def close(self) -> None:
        """Close the file sender, unless a thread uses it: then the executor closes it."""
        if not self._owned_by_executor:
            self._disk.close_later(self._sender)


_OUTCOMES = {
    StopReason.DISCONNECTED: Outcome.CLIENT_GONE,
    StopReason.FILE_CHANGED: Outcome.TRUNCATED,
    StopReason.STORAGE_ERROR: Outcome.STORAGE_ERROR,
}


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
