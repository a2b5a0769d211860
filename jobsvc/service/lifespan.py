"""What runs for as long as the application does, in which order it begins, and how long its end may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final

from aiohttp import web

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.index.digests.digest_service import Digests
from jobsvc.index.job_index import Index
from jobsvc.observe.download_log import DownloadLog
from jobsvc.service import gc_tuning, memory_trim
from jobsvc.service.components import Parts
from jobsvc.storage.executor import Disk
from jobsvc.storage.processes.record_process import RecordCondenser
from jobsvc.storage.threads.thread_pool import Pool
from jobsvc.web.ratelimit.download_slots import Slots

LAST_ANSWERS: Final = 0.5
"""Seconds that requests other than downloads have at the end; aiohttp takes them twice, and 0 for no end."""

Context = Callable[[web.Application], AsyncIterator[None]]


def add_lifetimes(app: web.Application, parts: Parts, on_indexed: Callable[[], None] | None = None) -> None:
    """Have the parts begin with the application, what is needed longest first, and end in reverse."""
    app.cleanup_ctx.extend(
        [
            _storage(parts.disk, parts.downloads, parts.condenser),
            parts.gate.watching,
            parts.token_use.saving,
            parts.links.keyed,
            parts.visits.shortened,
            _indexing(parts.index, on_indexed),
            _hashing(parts.digests, parts.index),
            parts.permits.watching,
            parts.stays.watching,
            parts.connection_timeouts.sweeping,
            gc_tuning.collecting(parts.index.ready, memory_trim.trim),
            memory_trim.trimming,
        ]
    )
    app.on_shutdown.append(parts.stays.end)
    app.on_shutdown.append(_let_finish(parts.slots, parts.settings.shutdown_grace))


def _storage(disk: Disk, downloads: DownloadLog, condenser: RecordCondenser) -> Context:
    async def context(_app: web.Application) -> AsyncIterator[None]:
        yield
        disk.close()
        # With a thread of its own: those of Disk may all hang.
        ending = Pool("end", threads=1)
        with suppress(StorageUnavailable):
            await ending.run("log", downloads.close)
            await ending.run("records", condenser.close)
        ending.close()

    return context


def _indexing(index: Index, on_indexed: Callable[[], None] | None) -> Context:
    async def told() -> None:
        await index.ready.wait()
        if on_indexed is not None:
            on_indexed()

    async def context(_app: web.Application) -> AsyncIterator[None]:
        async with index.running():
            telling = asyncio.create_task(told())
            yield
            telling.cancel()

    return context


def _hashing(digests: Digests, index: Index) -> Context:
    async def context(_app: web.Application) -> AsyncIterator[None]:
        async with digests.running(index.catalogue.more_is_known):
            yield

    return context


def _let_finish(slots: Slots, grace: float) -> Callable[[web.Application], Awaitable[None]]:
    async def wait(_app: web.Application) -> None:
        try:
            async with asyncio.timeout(grace):
                await slots.all_free()
        except TimeoutError:
            # aiohttp ends only those whose client is there; each has a line to write while there is a log.
            await slots.clear(LAST_ANSWERS)

    return wait
