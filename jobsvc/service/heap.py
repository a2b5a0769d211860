"""Freed memory is returned to the system after a peak.

glibc keeps what was freed below a block that is still in use, so the resident memory stays near its peak once
many large answers were held at the same time (malloc_trim(3)). Other C libraries are left alone.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

TRIM_INTERVAL_S: Final = 30.0
MIN_GROWTH_BYTES: Final = 16 << 20
"""Resident memory above that after the last trim, for which the next one is worth its time."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_STATM: Final = Path("/proc/self/statm")

_log = structlog.get_logger("jobsvc.service")


class HeapTrim:
    """Trims the heap in a thread where the resident memory has grown."""

    def __init__(self, trim: Callable[[int], object], resident_bytes: Callable[[], int]) -> None:
        self._trim = trim
        self._resident_bytes = resident_bytes
        self._after_last = 0

    def trim_if_grown(self) -> None:
        """Trim where the resident memory is well above what the last trim left."""
        if self._resident_bytes() >= self._after_last + MIN_GROWTH_BYTES:
            self._trim(0)
            self._after_last = self._resident_bytes()


async def trimming(_app: web.Application) -> AsyncIterator[None]:
    """Trim the heap until the application ends: a cleanup_ctx."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        yield
        return
    task = asyncio.create_task(_run(HeapTrim(trim, _resident_bytes)), name="jobsvc-heap-trim")
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _run(heap: HeapTrim) -> None:
    while True:
        await asyncio.sleep(TRIM_INTERVAL_S)
        try:
            await asyncio.to_thread(heap.trim_if_grown)
        except OSError:
            _log.exception("heap-trim-failed")


def _resident_bytes() -> int:
    return int(_STATM.read_text("ascii").split()[1]) * _PAGE_BYTES
