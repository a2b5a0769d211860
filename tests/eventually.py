"""Wait for a condition, with a deadline that a busy machine meets, and without fixed sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

_PAUSE: Final = 0.002
_REQUEST_PAUSE: Final = 0.01


async def until(condition: Callable[[], object], deadline: float = 15.0) -> None:
    """Return as soon as `condition` is true; fail the test if it is not within `deadline` seconds."""
    ends = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < ends, f"not true within {deadline} s: {condition}"
        await asyncio.sleep(_PAUSE)


async def until_equal(
    read: Callable[[], Awaitable[object]], expected: object, deadline: float = 15.0
) -> None:
    """Return as soon as `read` returns what is expected; fail the test if it does not within the deadline."""
    ends = time.monotonic() + deadline
    while (found := await read()) != expected:
        assert time.monotonic() < ends, f"{found} after {deadline} s, not {expected}"
        await pause()


def wait_until(condition: Callable[[], object], deadline: float = 15.0) -> None:
    """Like `until`, without an event loop."""
    ends = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < ends, f"not true within {deadline} s: {condition}"
        time.sleep(_PAUSE)


async def pause() -> None:
    """Wait before the next request; without a pause, polling takes the processor from what it waits for."""
    await asyncio.sleep(_REQUEST_PAUSE)
