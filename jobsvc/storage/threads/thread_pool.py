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
from jobsvc.storage.threads.background_closer import Closer, close

T = TypeVar("T")

THREADS: Final = 32
SHARE: Final = 3
"""The most threads that one key (a job) may hold in a pool."""
DEADLINE: Final = 5.0
"""Seconds an operation may take, the wait for a thread included."""
PATIENCE: Final = 1.0
"""A thread that is longer than this in one call counts as stuck, in seconds."""
_READY_THREADS: Final = 2
_GROW_AFTER: Final = 0.002
"""Seconds; more threads are begun only beside some that block as long: idle ones only cost."""


class Closable(Protocol):
    """What holds descriptors."""

    def close(self) -> None:
        """Give them back."""


class _Call(Generic[T]):
    """One operation on its way to a thread and back."""

    __slots__ = ("begun", "forsaken", "future", "key", "lent", "result", "work")

    def __init__(
        self, key: str, work: Callable[[], T], future: asyncio.Future[T], lent: Closable | None = None
    ) -> None:
        self.key = key
        self.work = work
        self.future = future
        self.lent = lent
        self.begun: float | None = None
        """When a thread took it up; infinite once the thread is done with it."""
        self.result: T | None = None
        self.forsaken = False
        """Whether `run` was left without the result."""


class Pool:
    """Threads for one kind of work. All of its books are kept on the event loop; no locks."""

    def __init__(
        self,
        name: str,
        *,
        threads: int = THREADS,
        share: int = SHARE,
        deadline: float = DEADLINE,
        patience: float = PATIENCE,
    ) -> None:
        self._name = name
        self._most = threads
        self._share = share
        self._deadline = deadline
        self._patience = patience
        self._queue: SimpleQueue[_Call[Any] | None] = SimpleQueue()
        self._threads = 0
        self._under_way: set[_Call[Any]] = set()
        self._held: dict[str, int] = {}
        self._lines: dict[str, deque[_Call[Any]]] = {}
        self._growing = False
        self._closed = False
        self._closer = Closer(name)

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
            self.dispose(lent)
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
            self._forsake(call)
            raise
        finally:
            timer.cancel()
        return result

    def dispose(self, thing: object) -> None:
        """Close `thing`, if it can be closed, off the loop and with nobody waiting for it."""
        self._closer.put(thing)

    def stuck(self) -> int:
        """Count the threads that have been in one call for longer than `patience`."""
        return self._slower_than(self._patience)

    def close(self) -> None:
        """Take no more work, carry out what was taken on, and let threads end; hung ones are the kernel's."""
        self._closed = True
        for _ in range(self._threads):
            self._queue.put(None)
        self._closer.end()

    def _slower_than(self, seconds: float) -> int:
        late = monotonic() - seconds
        return sum(call.begun is not None and call.begun < late for call in self._under_way)

    def _full(self) -> bool:
        return len(self._under_way) >= self._most and self.stuck() >= self._most

    def _admit(self, call: _Call[Any]) -> None:
        """Send a call to the threads, or to the end of its key's line where the key has its share."""
        held = self._held.get(call.key, 0)
        if held >= self._share:
            self._lines.setdefault(call.key, deque()).append(call)
            return
        self._held[call.key] = held + 1
        self._under_way.add(call)
        self._queue.put(call)
        if self._closed:
            self._begin_thread()
            self._queue.put(None)
        elif self._threads < min(_READY_THREADS, self._most):
            self._begin_thread()
        elif not self._growing:
            self._watch_growth(call.future.get_loop())

    def _watch_growth(self, loop: asyncio.AbstractEventLoop) -> None:
        self._growing = self._threads < min(len(self._under_way), self._most)
        if self._growing:
            loop.call_later(_GROW_AFTER, self._grow, loop)

    def _grow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a thread beside each that blocks, as long as calls wait and there may be more."""
        waiting = sum(call.begun is None for call in self._under_way)
        for _ in range(min(waiting, self._slower_than(_GROW_AFTER), self._most - self._threads)):
            self._begin_thread()
        self._watch_growth(loop)

    def _begin_thread(self) -> None:
        name = f"jobsvc-{self._name}-{self._threads + 1}"
        # Where there is no room for a thread, the calls wait for another, and the next one tries again.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._serve, name=name, daemon=True).start()
            self._threads += 1

    def _serve(self) -> None:
        while (call := self._queue.get()) is not None:
            error = None
            if not call.future.done():
                call.begun = monotonic()
                try:
                    call.result = call.work()
                except BaseException as raised:  # noqa: BLE001 - carried to the waiting task, whatever it is
                    error = raised
                call.begun = inf
            try:
                call.future.get_loop().call_soon_threadsafe(self._finish, call, error)
            except RuntimeError:  # the loop is gone, and with it whoever waited
                close(call.result)
                close(call.lent)
            # Else the frame keeps the last result alive for as long as the thread is idle.
            del call, error

    def _finish(self, call: _Call[Any], error: BaseException | None) -> None:
        """Take note that the thread is done with a call."""
        self._under_way.discard(call)
        self._held[call.key] -= 1
        self._next_in_line(call.key)
        if call.forsaken:
            self._abandon(call)
        elif call.future.done():
            return  # it has just expired: `run` is about to forsake it
        elif error is not None:
            call.future.set_exception(error)
        else:
            call.future.set_result(call.result)

    def _forsake(self, call: _Call[Any]) -> None:
        """Take note that nobody waits for a call; what it holds is closed once no thread has it."""
        call.forsaken = True
        self._leave_line(call)
        if call not in self._under_way:
            self._abandon(call)

    def _abandon(self, call: _Call[Any]) -> None:
        self.dispose(call.result)
        self.dispose(call.lent)

    def _next_in_line(self, key: str) -> None:
        line = self._lines.get(key)
        while line:
            call = line.popleft()
            if not call.future.done():
                self._admit(call)
                break
        if not line:
            self._lines.pop(key, None)
        if not self._held[key]:
            del self._held[key]

    def _leave_line(self, call: _Call[Any]) -> None:
        line = self._lines.get(call.key)
        if line is not None and call in line:
            line.remove(call)
            if not line:
                del self._lines[call.key]


def expire(future: asyncio.Future[Any]) -> None:
    """Tell who waits, if anyone still does, that the storage did not answer in time."""
    if not future.done():
        future.set_exception(
            StorageUnavailable("The storage did not answer in time.", reason="no answer in time")
        )
