"""Freed memory is returned to the system."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from types import SimpleNamespace

import pytest

from jobsvc.service import memory_trim
from jobsvc.web.background_task import background_task


async def test_heap_is_trimmed_repeatedly_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed, threads = asyncio.Semaphore(0), set[int]()
    loop = asyncio.get_running_loop()

    def trim(_keep: int) -> None:
        threads.add(threading.get_ident())
        loop.call_soon_threadsafe(trimmed.release)

    monkeypatch.setattr(memory_trim, "TRIM_INTERVAL_S", 0.01)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(malloc_trim=trim))
    async with background_task(memory_trim.trim_regularly(), "jobsvc-heap-trim"), asyncio.timeout(30):
        await trimmed.acquire()
        await trimmed.acquire()
    assert threading.get_ident() not in threads
