"""What is due on many connections is done for all of them in one callback of the loop.

Such a callback for each of them costs as much as a good part of a status; and a client that is woken for
each answer by itself, rather than for all at the end, costs more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Final

SLICE_S: Final = 0.01
"""After which the loop sees to others before the rest is done."""


class Together:
    """Steps that are taken one after the other, in the order in which they came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._steps: list[Callable[[], object]] = []

    def soon(self, step: Callable[[], object]) -> None:
        """Have a step taken once the loop has seen to what is ready now; it is like its `call_soon`."""
        if not self._steps:
            self._loop.call_soon(self._take)
        self._steps.append(step)

    def _take(self) -> None:
        steps, self._steps = self._steps, []
        until = perf_counter() + SLICE_S
        for done, step in enumerate(steps, 1):
            try:
                step()
            except Exception as fault:  # noqa: BLE001 - one connection's, and no reason to forget the others
                self._loop.call_exception_handler({"message": "Exception in a step", "exception": fault})
            if done < len(steps) and perf_counter() > until:
                self._put_off(steps[done:])
                return

    def _put_off(self, steps: list[Callable[[], object]]) -> None:
        if not self._steps:
            self._loop.call_soon(self._take)
        self._steps = steps + self._steps
