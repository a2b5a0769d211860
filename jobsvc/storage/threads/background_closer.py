"""Close unused objects off the event loop, in threads that do nothing else.

The threads of a pool can all hang; objects that they had to close would remain open for as long.
"""

from __future__ import annotations

import contextlib
import threading
from queue import SimpleQueue
from typing import Final

MAX_THREADS: Final = 3
"""Closing can hang too; objects then wait in the queue, and no caller waits for them."""


class BackgroundCloser:
    """Threads that close objects. Methods: event loop only."""

    def __init__(self, name: str, threads: int = MAX_THREADS) -> None:
        self._name = name
        self._max_threads = threads
        self._threads = 0
        self._queue: SimpleQueue[object] = SimpleQueue()
        self._ended = False

    def close_later(self, thing: object) -> None:
        """Queue `thing` to be closed, if it has a `close` method; returns at once."""
        if not hasattr(thing, "close"):
            return
        self._queue.put(thing)
        if self._ended:
            self._start_thread()
            self._queue.put(None)
        elif self._threads < self._max_threads:
            self._start_thread()

    def shut_down(self) -> None:
        """Let the threads end once the queue is empty; each later object gets a new thread."""
        self._ended = True
        for _ in range(self._threads):
            self._queue.put(None)

    def _start_thread(self) -> None:
        # If no thread can be started, the next object tries again.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._run, name=f"jobsvc-{self._name}-closer", daemon=True).start()
            self._threads += 1

    def _run(self) -> None:
        while (thing := self._queue.get()) is not None:
            close(thing)
            del thing


def close(thing: object) -> None:
    """Close `thing` in this thread, if it has a `close` method; an OSError is ignored."""
    method = getattr(thing, "close", None)
    if method is not None:
        with contextlib.suppress(OSError):
            method()
