"""Waiting for something to become true, with a deadline and without guessing how long it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

_PAUSE: Final = 0.002


async def until(condition: Callable[[], object], deadline: float = 5.0) -> None:
    """Come back as soon as `condition` holds; fail the test where it does not within `deadline` seconds."""
    ends = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < ends, f"not so within {deadline} s: {condition}"
        await asyncio.sleep(_PAUSE)


def wait_until(condition: Callable[[], object], deadline: float = 5.0) -> None:
    """Do as `until` does, where no loop runs."""
    ends = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < ends, f"not so within {deadline} s: {condition}"
        time.sleep(_PAUSE)
