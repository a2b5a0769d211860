"""Measures the CPU time of the longest step of a test's event loop; other processes do not count."""

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
    """Measure the steps of the running loop during a block.

    Garbage collection is disabled: it would walk all objects of earlier tests.
    """
    loop, seen, before = asyncio.get_running_loop(), LongestStep(), time.thread_time()
    running = True

    def tick() -> None:
        nonlocal before
        now = time.thread_time()
        seen.seconds, before = max(seen.seconds, now - before), now
        if running:
            loop.call_soon(tick)

    gc.disable()
    tick()
    try:
        yield seen
    finally:
        running = False
        gc.enable()
