"""Freed memory is returned to the system."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from types import SimpleNamespace

import pytest
from aiohttp import web

from jobsvc.service import memory_trim


async def test_the_heap_is_trimmed_again_and_again_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed, threads = asyncio.Semaphore(0), set[int]()
    loop = asyncio.get_running_loop()

    def trim(_keep: int) -> None:
        threads.add(threading.get_ident())
        loop.call_soon_threadsafe(trimmed.release)

    monkeypatch.setattr(memory_trim, "TRIM_INTERVAL_S", 0.01)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(malloc_trim=trim))
    context = memory_trim.trim_cleanup_ctx(web.Application())
    await anext(context)
    async with asyncio.timeout(30):
        await trimmed.acquire()
        await trimmed.acquire()
    assert threading.get_ident() not in threads
    with pytest.raises(StopAsyncIteration):
        await anext(context)
