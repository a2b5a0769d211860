"""The one bridge from the event loop to storage: every touch of it goes over here.

Metadata, bytes, and what nobody waits for have pools of their own, so that none waits behind another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.storage.files.os_errors import describe
from jobsvc.storage.sendfile.epoll_sender import EpollSender
from jobsvc.storage.sendfile.file_sender import FileSender, SendResult
from jobsvc.storage.threads.thread_pool import DEADLINE_S, Closable, ThreadPool

T = TypeVar("T")

DATA_DEADLINE_S: Final = 30.0
"""Seconds; a download that waited this long for one slice of bytes is given up."""

CONTROL_THREADS: Final = 4
BACKGROUND_DEADLINE_S: Final = 30.0
BACKGROUND_THREADS: Final = 8
"""One works at a time; the others are for those that hang."""


class StorageExecutor:
    """Storage as the loop sees it."""

    def __init__(
        self,
        *,
        on_fault: Callable[[str, Exception], None] | None = None,
        deadline: float = DEADLINE_S,
        background_deadline: float = BACKGROUND_DEADLINE_S,
    ) -> None:
        self._metadata = ThreadPool("metadata", deadline=deadline)
        self._data = ThreadPool("data", deadline=DATA_DEADLINE_S)
        self._background = ThreadPool(
            "background", threads=BACKGROUND_THREADS, share=1, deadline=background_deadline
        )
        self._control = ThreadPool("control", threads=CONTROL_THREADS, share=1, deadline=deadline)
        self._epoll_sender = EpollSender(self._data.close_later, deadline=DATA_DEADLINE_S)
        self._on_fault = on_fault or _ignore
        self._metadata_calls = 0
        """Looks under way."""
        self._idle = asyncio.Event()
        """Set while there are none."""
        self._idle.set()

    async def run_metadata(self, key: str, work: Callable[[], T], deadline: float | None = None) -> T:
        """Run a look at the storage for `key`, a job's id or a name of our own.

        StorageUnavailable where no answer came in time, and for every OSError: what is merely absent,
        the reader has told apart by then.
        """
        self._metadata_calls += 1
        self._idle.clear()
        try:
            return await self._report_fault(key, self._metadata.run(key, work, deadline=deadline))
        finally:
            self._metadata_calls -= 1
            if not self._metadata_calls:
                self._idle.set()

    async def wait_idle(self, most: float) -> None:
        """Let others at the loop, and wait until no look is under way, for `most` seconds at most.

        For who works on the loop for long: a look needs the interpreter anew after each call that it makes.
        """
        await asyncio.sleep(0)
        if self._metadata_calls:
            with suppress(TimeoutError):
                async with asyncio.timeout(most):
                    await self._idle.wait()

    async def run_data(self, key: str, work: Callable[[], T], lent: Closable | None = None) -> T:
        """Move bytes for `key` with the descriptors in `lent`; Pool.run says whose they are then."""
        return await self._data.run(key, work, lent=lent)

    def accepts_send(self, conduit: FileSender) -> bool:
        """Whether `carry` is the way for the next bytes: its storage is quick, and Ferry waits for none."""
        return conduit.is_fast and self._epoll_sender.is_running

    def send(self, conduit: FileSender, start: int, stop: int) -> asyncio.Future[SendResult]:
        """Have these bytes moved together with those of others, as Ferry.carry says."""
        return self._epoll_sender.send(conduit, start, stop)

    async def run_background(self, key: str, work: Callable[[], T], lent: Closable | None = None) -> T:
        """Do for `key` what no client waits for; StorageUnavailable as above, `lent` as in `data`."""
        return await self._report_fault(key, self._background.run(key, work, lent=lent))

    async def run_control(self, key: str, work: Callable[[], T]) -> T:
        """Run what must work while jobs hang in all other threads: token reads and figures of the process.

        StorageUnavailable as above. A `key` has one thread at most.
        """
        return await self._report_fault(key, self._control.run(key, work))

    def close_later(self, closable: object) -> None:
        """Close a file that is done with, off the loop."""
        self._metadata.close_later(closable)

    def stuck_threads(self) -> int:
        """Count the threads that wait for storage unduly long."""
        pools = (self._metadata, self._data, self._background, self._control, self._epoll_sender)
        return sum(pool.stuck_threads() for pool in pools)

    def close(self) -> None:
        """Let idle threads end and take no more work; returns at once."""
        self._metadata.close()
        self._data.close()
        self._epoll_sender.close()
        self._background.close()
        self._control.close()

    async def _report_fault(self, key: str, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except OSError as fault:
            self._on_fault(key, fault)
            detail = "The storage answered with a fault of its own."
            raise StorageUnavailable(detail, reason=describe(fault)) from fault
        except StorageUnavailable as late:
            self._on_fault(key, late)
            raise


def _ignore(_key: str, _fault: Exception) -> None:
    """Nobody asked to be told."""
