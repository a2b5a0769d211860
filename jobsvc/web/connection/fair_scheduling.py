"""Share the event loop fairly between connections.

CallbackBatch runs the callbacks of many connections in one event-loop callback of bounded time. A loop
callback per connection costs a good part of a status response. Waking a client for each response, instead of
once for all of them at the end, costs more.

YieldingLock spreads work that takes some milliseconds over the iterations of the event loop. Many streams
that start at once, or that send a large event, would otherwise all do a piece of their work in the same
iteration, and every other request would wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final

SLICE_S: Final = 0.005
"""Time for cheap steps in one callback."""
COSTLY_SLICE_S: Final = 0.001
"""The same for steps that can be expensive: the next cheap step waits for them."""
MAX_STARTED_TASKS: Final = 4
"""Tasks that one callback starts before it ends: all of them run in the next iteration of the loop."""

Step = Callable[[], object]


class CallbackBatch:
    """Queues of steps. Each runs in its order; two of them have their own time limit in each callback."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._cheap: deque[Step] = deque()
        self._costly: deque[Step] = deque()
        self._at_end: deque[Step] = deque()
        self._scheduled = False
        self._started_tasks = 0

    def call_soon(self, step: Step) -> None:
        """Run a cheap step after the callbacks that are ready now, like the loop's `call_soon`."""
        self._cheap.append(step)
        if not self._scheduled:
            self._schedule()

    def call_costly(self, step: Step) -> None:
        """Run a step that can be expensive; steps of `call_soon` do not wait for those queued before it."""
        self._costly.append(step)
        if not self._scheduled:
            self._schedule()

    def call_at_end(self, step: Step) -> None:
        """Run a step at the end of the current callback, or of the next one if none is running.

        In a separate iteration it would wait again for the work of all other connections.
        """
        self._at_end.append(step)
        if not self._scheduled:
            self._schedule()

    def count_started_task(self) -> None:
        """Count a task that the current step starts."""
        self._started_tasks += 1

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._started_tasks = 0
        for steps, seconds in ((self._cheap, SLICE_S), (self._costly, COSTLY_SLICE_S)):
            if steps:
                self._run_some(steps, seconds)
            while self._at_end:
                self._run_one(self._at_end.popleft())
        self._scheduled = False
        if self._cheap or self._costly:
            self._schedule()

    def _run_some(self, steps: deque[Step], seconds: float) -> None:
        until = perf_counter() + seconds
        for _ in range(len(steps)):  # not those that are added meanwhile
            self._run_one(steps.popleft())
            if self._started_tasks >= MAX_STARTED_TASKS or perf_counter() > until:
                return

    def _run_one(self, step: Step) -> None:
        try:
            step()
        except Exception as exc:  # noqa: BLE001 - one connection's error must not affect the others
            self._loop.call_exception_handler({"message": "Exception in a callback", "exception": exc})


class YieldingLock:
    """A lock with at most one holder in each iteration of the event loop, in order of arrival.

    The holder must not wait for anything.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_exc: object) -> None:
        try:
            await asyncio.sleep(0)
        finally:
            self._lock.release()
