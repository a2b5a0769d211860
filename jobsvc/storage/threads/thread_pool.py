"""Daemon threads for calls that may block, with books that are kept on the event loop and need no locks.

Every wait has a deadline, every key (a job) its share of the threads and no more, and a pool whose threads
are all stuck refuses at once. What comes back too late is closed. No thread keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from math import inf
from queue import SimpleQueue
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeVar

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.storage.threads.background_closer import BackgroundCloser, close

T = TypeVar("T")

MAX_THREADS: Final = 32
MAX_PER_KEY: Final = 3
"""The most threads that one key (a job) may hold in a pool."""
DEADLINE_S: Final = 5.0
"""Seconds an operation may take, the wait for a thread included."""
STUCK_AFTER_S: Final = 1.0
"""A thread that is longer than this in one call counts as stuck, in seconds."""
_READY_THREADS: Final = 2
_GROW_AFTER_S: Final = 0.002
"""Seconds; more threads are begun only beside some that block as long: idle ones only cost."""


class Closable(Protocol):
    """What holds descriptors."""

    def close(self) -> None:
        """Give them back."""


class _Call(Generic[T]):
    """One operation on its way to a thread and back."""

    __slots__ = ("abandoned", "future", "key", "resource", "result", "started_at", "work")

    def __init__(
        self, key: str, work: Callable[[], T], future: asyncio.Future[T], lent: Closable | None = None
    ) -> None:
        self.key = key
        self.work = work
        self.future = future
        self.resource = lent
        self.started_at: float | None = None
        """When a thread took it up; infinite once the thread is done with it."""
        self.result: T | None = None
        self.abandoned = False
        """Whether `run` was left without the result."""


class ThreadPool:
    """Threads for one kind of work. All of its books are kept on the event loop; no locks."""

    def __init__(
        self,
        name: str,
        *,
        threads: int = MAX_THREADS,
        share: int = MAX_PER_KEY,
        deadline: float = DEADLINE_S,
        patience: float = STUCK_AFTER_S,
    ) -> None:
        self._name = name
        self._max_threads = threads
        self._max_per_key = share
        self._deadline = deadline
        self._stuck_after = patience
        self._queue: SimpleQueue[_Call[Any] | None] = SimpleQueue()
        self._threads = 0
        self._in_flight: set[_Call[Any]] = set()
        self._running_by_key: dict[str, int] = {}
        self._waiting_by_key: dict[str, deque[_Call[Any]]] = {}
        self._growing = False
        self._closed = False
        self._closer = BackgroundCloser(name)

    async def run(
        self,
        key: str,
        work: Callable[[], T],
        *,
        deadline: float | None = None,
        lent: Closable | None = None,
    ) -> T:
        """Run `work` in a thread and return what it returns; StorageUnavailable when `deadline` seconds pass.

        `lent` is what the work uses: it is the caller's again where this returns. Where this raises anything,
        `lent` is closed as soon as no thread uses it, and so is a result that came too late.
        """
        if self._closed or self._full():
            self.close_later(lent)
            raise StorageUnavailable(
                "Every thread that could ask the storage is waiting for it.", reason="all threads are stuck"
            )
        loop = asyncio.get_running_loop()
        call = _Call(key, work, loop.create_future(), lent)
        self._admit(call)
        timer = loop.call_later(deadline or self._deadline, expire, call.future)
        try:
            result: T = await call.future
        except BaseException:
            self._mark_abandoned(call)
            raise
        finally:
            timer.cancel()
        return result

    def close_later(self, thing: object) -> None:
        """Close `thing`, if it can be closed, off the loop and with nobody waiting for it."""
        self._closer.close_later(thing)

    def stuck_threads(self) -> int:
        """Count the threads that have been in one call for longer than `patience`."""
        return self._slower_than(self._stuck_after)

    def close(self) -> None:
        """Take no more work, carry out what was taken on, and let threads end; hung ones are the kernel's."""
        self._closed = True
        for _ in range(self._threads):
            self._queue.put(None)
        self._closer.shut_down()

    def _slower_than(self, seconds: float) -> int:
        late = monotonic() - seconds
        return sum(call.started_at is not None and call.started_at < late for call in self._in_flight)

    def _full(self) -> bool:
        return len(self._in_flight) >= self._max_threads and self.stuck_threads() >= self._max_threads

    def _admit(self, call: _Call[Any]) -> None:
        """Send a call to the threads, or to the end of its key's line where the key has its share."""
        held = self._running_by_key.get(call.key, 0)
        if held >= self._max_per_key:
            self._waiting_by_key.setdefault(call.key, deque()).append(call)
            return
        self._running_by_key[call.key] = held + 1
        self._in_flight.add(call)
        self._queue.put(call)
        if self._closed:
            self._start_thread()
            self._queue.put(None)
        elif self._threads < min(_READY_THREADS, self._max_threads):
            self._start_thread()
        elif not self._growing:
            self._watch_growth(call.future.get_loop())

    def _watch_growth(self, loop: asyncio.AbstractEventLoop) -> None:
        self._growing = self._threads < min(len(self._in_flight), self._max_threads)
        if self._growing:
            loop.call_later(_GROW_AFTER_S, self._grow, loop)

    def _grow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a thread beside each that blocks, as long as calls wait and there may be more."""
        waiting = sum(call.started_at is None for call in self._in_flight)
        for _ in range(min(waiting, self._slower_than(_GROW_AFTER_S), self._max_threads - self._threads)):
            self._start_thread()
        self._watch_growth(loop)

    def _start_thread(self) -> None:
        name = f"jobsvc-{self._name}-{self._threads + 1}"
        # Where there is no room for a thread, the calls wait for another, and the next one tries again.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._run, name=name, daemon=True).start()
            self._threads += 1

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            error = None
            if not call.future.done():
                call.started_at = monotonic()
                try:
                    call.result = call.work()
                except BaseException as raised:  # noqa: BLE001 - carried to the waiting task, whatever it is
                    error = raised
                call.started_at = inf
            try:
                call.future.get_loop().call_soon_threadsafe(self._deliver, call, error)
            except RuntimeError:  # the loop is gone, and with it whoever waited
                close(call.result)
                close(call.resource)
            # Else the frame keeps the last result alive for as long as the thread is idle.
            del call, error

    def _deliver(self, call: _Call[Any], error: BaseException | None) -> None:
        """Take note that the thread is done with a call."""
        self._in_flight.discard(call)
        self._running_by_key[call.key] -= 1
        self._next_waiting(call.key)
        if call.abandoned:
            self._abandon(call)
        elif call.future.done():
            return  # it has just expired: `run` is about to forsake it
        elif error is not None:
            call.future.set_exception(error)
        else:
            call.future.set_result(call.result)

    def _mark_abandoned(self, call: _Call[Any]) -> None:
        """Take note that nobody waits for a call; what it holds is closed once no thread has it."""
        call.abandoned = True
        self._stop_waiting(call)
        if call not in self._in_flight:
            self._abandon(call)

    def _abandon(self, call: _Call[Any]) -> None:
        self.close_later(call.result)
        self.close_later(call.resource)

    def _next_waiting(self, key: str) -> None:
        line = self._waiting_by_key.get(key)
        while line:
            call = line.popleft()
            if not call.future.done():
                self._admit(call)
                break
        if not line:
            self._waiting_by_key.pop(key, None)
        if not self._running_by_key[key]:
            del self._running_by_key[key]

    def _stop_waiting(self, call: _Call[Any]) -> None:
        line = self._waiting_by_key.get(call.key)
        if line is not None and call in line:
            line.remove(call)
            if not line:
                del self._waiting_by_key[call.key]


def expire(future: asyncio.Future[Any]) -> None:
    """Tell who waits, if anyone still does, that the storage did not answer in time."""
    if not future.done():
        future.set_exception(
            StorageUnavailable("The storage did not answer in time.", reason="no answer in time")
        )
