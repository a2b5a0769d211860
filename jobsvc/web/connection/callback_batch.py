"""Run the callbacks of many connections in one event-loop callback of bounded time.

A loop callback per connection costs a good part of a status response. Waking a client for each response,
instead of once for all of them at the end, costs more.
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
        self._soon: deque[Step] = deque()
        self._later: deque[Step] = deque()
        self._at_end: deque[Step] = deque()
        self._scheduled = False
        self._started_tasks = 0

    def call_soon(self, step: Step) -> None:
        """Run a cheap step after the callbacks that are ready now, like the loop's `call_soon`."""
        self._soon.append(step)
        if not self._scheduled:
            self._schedule()

    def call_later_in_turn(self, step: Step) -> None:
        """Run a step that can be expensive; steps of `call_soon` do not wait for those queued before it."""
        self._later.append(step)
        if not self._scheduled:
            self._schedule()

    def at_end(self, step: Step) -> None:
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
        self._loop.call_soon(self._take)

    def _take(self) -> None:
        self._started_tasks = 0
        for steps, seconds in ((self._soon, SLICE_S), (self._later, COSTLY_SLICE_S)):
            if steps:
                self._take_some(steps, seconds)
            while self._at_end:
                self._take_one(self._at_end.popleft())
        self._scheduled = False
        if self._soon or self._later:
            self._schedule()

    def _take_some(self, steps: deque[Step], seconds: float) -> None:
        until = perf_counter() + seconds
        for _ in range(len(steps)):  # not those that are added meanwhile
            self._take_one(steps.popleft())
            if self._started_tasks >= MAX_STARTED_TASKS or perf_counter() > until:
                return

    def _take_one(self, step: Step) -> None:
        try:
            step()
        except Exception as exc:  # noqa: BLE001 - one connection's error must not affect the others
            self._loop.call_exception_handler({"message": "Exception in a step", "exception": exc})
