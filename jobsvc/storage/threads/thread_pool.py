"""Run blocking calls in daemon threads, for the event loop.

Every call has a deadline. Each key (a job) can use only a limited number of the threads. A pool whose threads
are all stuck refuses calls at once. A result that comes too late is closed. Threads do not keep the process
from ending. All state is kept on the event loop and needs no locks.
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
"""Maximum threads of a pool that one key (a job) can use at once."""
DEADLINE_S: Final = 5.0
"""Seconds after which a call fails, queueing included."""
STUCK_AFTER_S: Final = 1.0
"""Seconds; a thread that is in one call for longer counts as stuck."""
_READY_THREADS: Final = 2
_GROW_AFTER_S: Final = 0.002
"""Seconds; further threads are started only if calls block for this long, because idle ones only cost."""


class Closable(Protocol):
    """An object that holds descriptors."""

    def close(self) -> None:
        """Close the descriptors."""


class _Call(Generic[T]):
    """One call, from `run` to a thread and back."""

    __slots__ = ("abandoned", "future", "key", "resource", "result", "started_at", "work")

    def __init__(
        self, key: str, work: Callable[[], T], future: asyncio.Future[T], resource: Closable | None = None
    ) -> None:
        self.key = key
        self.work = work
        self.future = future
        self.resource = resource
        self.started_at: float | None = None
        """Monotonic seconds when a thread started it; infinite once finished, so it never counts as slow."""
        self.result: T | None = None
        self.abandoned = False
        """Whether `run` ended without the result."""


class ThreadPool:
    """Threads for one kind of work. Methods: event loop only; no locks."""

    def __init__(
        self,
        name: str,
        *,
        threads: int = MAX_THREADS,
        max_per_key: int = MAX_PER_KEY,
        deadline: float = DEADLINE_S,
        stuck_after: float = STUCK_AFTER_S,
    ) -> None:
        self._name = name
        self._max_threads = threads
        self._max_per_key = max_per_key
        self._deadline = deadline
        self._stuck_after = stuck_after
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
        resource: Closable | None = None,
    ) -> T:
        """Run `work` in a thread and return its result, or raise its exception.

        `resource` is used by `work`. After a normal return it belongs to the caller again; if this raises,
        the pool closes it as soon as no thread uses it, together with any late result. Raises
        StorageUnavailable after `deadline` seconds (queueing included), and at once if all threads are stuck
        or after `close`.
        """
        if self._closed or self._full():
            self.close_later(resource)
            raise StorageUnavailable(
                "The storage does not respond: all storage threads are blocked.",
                reason="all threads are stuck",
            )
        loop = asyncio.get_running_loop()
        call = _Call(key, work, loop.create_future(), resource)
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
        """Close `thing`, if it has a `close` method, in a background thread; returns at once."""
        self._closer.close_later(thing)

    def stuck_threads(self) -> int:
        """Count the threads that have been in one call for longer than `stuck_after` seconds."""
        return self._slower_than(self._stuck_after)

    def close(self) -> None:
        """Refuse new calls, finish the accepted ones and let threads end; hung ones end with the process."""
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
        """Queue a call for the threads, or behind its key's waiting calls if the key uses its maximum."""
        running = self._running_by_key.get(call.key, 0)
        if running >= self._max_per_key:
            self._waiting_by_key.setdefault(call.key, deque()).append(call)
            return
        self._running_by_key[call.key] = running + 1
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
        """Start one thread per blocked thread, up to the number of waiting calls and the pool's maximum."""
        waiting = sum(call.started_at is None for call in self._in_flight)
        for _ in range(min(waiting, self._slower_than(_GROW_AFTER_S), self._max_threads - self._threads)):
            self._start_thread()
        self._watch_growth(loop)

    def _start_thread(self) -> None:
        name = f"jobsvc-{self._name}-{self._threads + 1}"
        # If no thread can be started, calls wait for the existing ones, and the next call tries again.
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
                except BaseException as raised:  # noqa: BLE001 - passed to the waiting task, whatever it is
                    error = raised
                call.started_at = inf
            try:
                call.future.get_loop().call_soon_threadsafe(self._deliver, call, error)
            except RuntimeError:  # the event loop is closed, and nothing waits for the result
                close(call.result)
                close(call.resource)
            # Without this, the frame keeps the last result alive while the thread is idle.
            del call, error

    def _deliver(self, call: _Call[Any], error: BaseException | None) -> None:
        """Record that a thread finished a call; pass the result on, or close it if `run` has ended."""
        self._in_flight.discard(call)
        self._running_by_key[call.key] -= 1
        self._next_waiting(call.key)
        if call.abandoned:
            self._abandon(call)
        elif call.future.done():
            return  # it has just expired: `run` is about to mark it abandoned
        elif error is not None:
            call.future.set_exception(error)
        else:
            call.future.set_result(call.result)

    def _mark_abandoned(self, call: _Call[Any]) -> None:
        """Record that no task waits for a call; close its result and resource once no thread uses them."""
        call.abandoned = True
        self._stop_waiting(call)
        if call not in self._in_flight:
            self._abandon(call)

    def _abandon(self, call: _Call[Any]) -> None:
        self.close_later(call.result)
        self.close_later(call.resource)

    def _next_waiting(self, key: str) -> None:
        waiting = self._waiting_by_key.get(key)
        while waiting:
            call = waiting.popleft()
            if not call.future.done():
                self._admit(call)
                break
        if not waiting:
            self._waiting_by_key.pop(key, None)
        if not self._running_by_key[key]:
            del self._running_by_key[key]

    def _stop_waiting(self, call: _Call[Any]) -> None:
        waiting = self._waiting_by_key.get(call.key)
        if waiting is not None and call in waiting:
            waiting.remove(call)
            if not waiting:
                del self._waiting_by_key[call.key]


def expire(future: asyncio.Future[Any]) -> None:
    """Fail the future with StorageUnavailable, unless it is done."""
    if not future.done():
        future.set_exception(
            StorageUnavailable("The storage did not respond in time.", reason="no response in time")
        )
