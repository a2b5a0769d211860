"""What is due on many connections is done for all of them in one callback of the loop.

Such a callback for each of them costs as much as a good part of a status; and a client that is woken for
each answer by itself, rather than for all at the end, costs more. The time of one callback is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final

SLICE_S: Final = 0.005
"""Time for the cheap steps in one callback."""
COSTLY_SLICE_S: Final = 0.001
"""The same for steps that may cost much: the next cheap step waits for them."""
MAX_STARTED_TASKS: Final = 4
"""Tasks that the steps of one callback start: all of them run in the next iteration of the loop."""

Step = Callable[[], object]


class CallbackBatch:
    """Queues of steps; each is taken in its order, and two have a time of their own in each callback."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._soon: deque[Step] = deque()
        self._later: deque[Step] = deque()
        self._at_end: deque[Step] = deque()
        self._scheduled = False
        self._started_tasks = 0

    def call_soon(self, step: Step) -> None:
        """Have a step taken once the loop has seen to what is ready now; it is like its `call_soon`."""
        self._soon.append(step)
        if not self._scheduled:
            self._schedule()

    def call_later_in_turn(self, step: Step) -> None:
        """Have a step taken that may cost much; steps of `soon` do not wait for those before it."""
        self._later.append(step)
        if not self._scheduled:
            self._schedule()

    def at_end(self, step: Step) -> None:
        """Have a step taken at the end of the present callback, or of the next where none runs.

        In an iteration of its own it would wait once more for the work of all other connections.
        """
        self._at_end.append(step)
        if not self._scheduled:
            self._schedule()

    def count_started_task(self) -> None:
        """Count a task that the present step starts."""
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
        except Exception as fault:  # noqa: BLE001 - one connection's, and no reason to forget the others
            self._loop.call_exception_handler({"message": "Exception in a step", "exception": fault})
