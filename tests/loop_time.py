"""How long the event loop of a test is held by one step, in processor time: other processes don't count."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class LongestStep:
    """The longest step so far."""

    seconds: float = 0.0


@contextmanager
def longest_step() -> Iterator[LongestStep]:
    """Measure the steps of the loop that runs, for the length of a block.

    Without garbage collections: they walk all that the other tests left behind.
    """
    loop, seen, before = asyncio.get_running_loop(), LongestStep(), time.thread_time()
    going = True

    def tick() -> None:
        nonlocal before
        now = time.thread_time()
        seen.seconds, before = max(seen.seconds, now - before), now
        if going:
            loop.call_soon(tick)

    gc.disable()
    tick()
    try:
        yield seen
    finally:
        going = False
        gc.enable()
