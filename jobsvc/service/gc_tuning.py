"""Keep garbage collections short: run full ones rarely, and exclude the jobs of the first index.

A full collection stops the whole process while it examines every object that can be part of a cycle: 0.1 s
with 2,000 connections, a second with a million jobs. By default, Python runs one whenever the number of old
objects has grown by a quarter. Here, full collections run on a timer. Jobs, responses and connections leave
no cycles, so there is little to collect.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

FULL_COLLECTION_INTERVAL_S: Final = 30.0
FULL_COLLECTION_SHARE: Final = 0.001
"""Maximum share of time for full collections: one that takes 0.1 s is followed by the next after 100 s."""
AUTOMATIC_FULL_COLLECTION: Final = 1_000_000
"""Collections of younger objects after which Python runs a full one by itself: in effect never."""


def disable_automatic_full_collections() -> None:
    """Turn off automatic full collections; those of younger objects are unchanged."""
    gc.set_threshold(*gc.get_threshold()[:2], AUTOMATIC_FULL_COLLECTION)


def freeze_existing_objects() -> None:
    """Exclude all existing objects from collections; call this once the first index is complete."""
    gc.freeze()


def pause_after(duration: float) -> float:
    """Return the seconds until the next full collection, after one that took `duration` seconds."""
    return max(FULL_COLLECTION_INTERVAL_S, duration / FULL_COLLECTION_SHARE)


async def collect_regularly(ready: asyncio.Event, then: Callable[[], Awaitable[object]]) -> None:
    """Run full collections once `ready` is set, until cancelled.

    `then` is awaited after each: what a collection freed is returned to the system at once.
    """
    await ready.wait()
    pause = FULL_COLLECTION_INTERVAL_S
    while True:
        await asyncio.sleep(pause)
        started_at = perf_counter()
        gc.collect()
        pause = pause_after(perf_counter() - started_at)
        await then()
