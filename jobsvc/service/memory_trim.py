"""Return freed memory to the system after a peak.

glibc keeps memory that was freed below a block still in use, so resident memory remains near its peak after
many large responses were held at the same time (malloc_trim(3)). Other C libraries are left alone.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

TRIM_INTERVAL_S: Final = 30.0


async def trim() -> None:
    """Trim the heap once, in a thread."""
    malloc_trim: Callable[[int], object] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        await asyncio.to_thread(malloc_trim, 0)


async def trim_regularly() -> None:
    """Trim the heap every TRIM_INTERVAL_S until cancelled."""
    while True:
        await asyncio.sleep(TRIM_INTERVAL_S)
        await trim()
