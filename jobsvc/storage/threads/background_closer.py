"""Closes what nobody needs any more, off the loop, in threads that do nothing else.

Those that work for somebody may all hang; what was to be closed would stay open for as long.
"""

from __future__ import annotations

import contextlib
import threading
from queue import SimpleQueue
from typing import Final

MAX_THREADS: Final = 3
"""Closing may hang as well; what comes then waits, and holds nobody up."""


class BackgroundCloser:
    """Threads that close. All methods are for the thread of the loop."""

    def __init__(self, name: str, threads: int = MAX_THREADS) -> None:
        self._name = name
        self._max_threads = threads
        self._threads = 0
        self._queue: SimpleQueue[object] = SimpleQueue()
        self._ended = False

    def close_later(self, thing: object) -> None:
        """Have `thing` closed, if it can be; returns at once."""
        if not hasattr(thing, "close"):
            return
        self._queue.put(thing)
        if self._ended:
            self._start_thread()
            self._queue.put(None)
        elif self._threads < self._max_threads:
            self._start_thread()

    def shut_down(self) -> None:
        """Let the threads end when all is closed; what is put in later has a thread of its own."""
        self._ended = True
        for _ in range(self._threads):
            self._queue.put(None)

    def _start_thread(self) -> None:
        # Where there is no room for a thread, the next that is put in tries again.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._run, name=f"jobsvc-{self._name}-closer", daemon=True).start()
            self._threads += 1

    def _run(self) -> None:
        while (thing := self._queue.get()) is not None:
            close(thing)
            del thing


def close(thing: object) -> None:
    """Close `thing` here and now, if it can be; that it could not be is nobody's business any more."""
    method = getattr(thing, "close", None)
    if method is not None:
        with contextlib.suppress(OSError):
            method()
