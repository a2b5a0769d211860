"""Closes what nobody needs any more, off the loop, in threads that do nothing else.

Those that work for somebody may all hang; what was to be closed would stay open for as long.
"""

from __future__ import annotations

import contextlib
import threading
from queue import SimpleQueue
from typing import Final

THREADS: Final = 3
"""Closing may hang as well; what comes then waits, and holds nobody up."""


class Closer:
    """Threads that close. All methods are for the thread of the loop."""

    def __init__(self, name: str, threads: int = THREADS) -> None:
        self._name = name
        self._most = threads
        self._threads = 0
        self._things: SimpleQueue[object] = SimpleQueue()
        self._ended = False

    def put(self, thing: object) -> None:
        """Have `thing` closed, if it can be; returns at once."""
        if not hasattr(thing, "close"):
            return
        self._things.put(thing)
        if self._ended:
            self._begin_thread()
            self._things.put(None)
        elif self._threads < self._most:
            self._begin_thread()

    def end(self) -> None:
        """Let the threads end when all is closed; what is put in later has a thread of its own."""
        self._ended = True
        for _ in range(self._threads):
            self._things.put(None)

    def _begin_thread(self) -> None:
        # Where there is no room for a thread, the next that is put in tries again.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._serve, name=f"jobsvc-{self._name}-closer", daemon=True).start()
            self._threads += 1

    def _serve(self) -> None:
        while (thing := self._things.get()) is not None:
            close(thing)
            del thing


def close(thing: object) -> None:
    """Close `thing` here and now, if it can be; that it could not be is nobody's business any more."""
    method = getattr(thing, "close", None)
    if method is not None:
        with contextlib.suppress(OSError):
            method()
