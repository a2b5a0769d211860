"""Run long work in short steps, each in another thread call, so that it holds up nothing else.

The work is a generator that yields often, at least every few milliseconds if storage is fast.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from time import monotonic, sleep
from typing import Final, Generic, TypeVar

from jobsvc.storage.threads.gil_yield import GIL_PAUSE_S

T = TypeVar("T")

STEP_S: Final = 0.02
"""Seconds of one step, if no single call takes longer."""
_BURST_S: Final = 0.004
"""Seconds between two pauses in which the event loop can take the GIL."""


class SteppedWork(Generic[T]):
    """One piece of work. `step` runs in a thread, in one at a time; `close` can be called from any."""

    def __init__(self, work: Generator[None, None, T]) -> None:
        """Take ownership of the generator."""
        self._work = work
        self._lock = threading.Lock()
        self._is_closed = False
        self._results: list[T] = []

    @property
    def result(self) -> T:
        """What the work returned; call only after `step` returned True."""
        (result,) = self._results
        return result

    def step(self, seconds: float = STEP_S) -> bool:
        """Continue the work for about this many seconds; return whether it is finished.

        Raises what the work raises, and RuntimeError if it was closed.
        """
        try:
            with self._lock:
                return self._run(monotonic() + seconds)
        finally:
            if self._is_closed:
                self.close()

    def close(self) -> None:
        """End the work and close what it has open; if a step is running, at its end. Does not wait for it."""
        self._is_closed = True
        if self._lock.acquire(blocking=False):
            try:
                self._work.close()
            finally:
                self._lock.release()

    def _run(self, end_at: float) -> bool:
        pause_at = monotonic() + _BURST_S
        try:
            while (now := monotonic()) < end_at:
                if self._is_closed:
                    raise RuntimeError("the work was closed")
                if now > pause_at:
                    sleep(GIL_PAUSE_S)
                    pause_at = monotonic() + _BURST_S
                next(self._work)
        except StopIteration as finished:
            self._results.append(finished.value)
            return True
        return False
