"""Start the components with the application and stop them in reverse order, within a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Final

from aiohttp import web

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.observe.download_log import DownloadLog
from jobsvc.service.components import Components
from jobsvc.service.gc_tuning import collect_regularly
from jobsvc.service.memory_trim import trim, trim_regularly
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.processes.record_process import RecordProcessClient
from jobsvc.storage.threads.thread_pool import ThreadPool
from jobsvc.web.background_task import background_task
from jobsvc.web.ratelimit.download_slots import DownloadSlots

SHUTDOWN_TIMEOUT_S: Final = 0.5
"""Seconds that requests other than downloads have at shutdown.

aiohttp waits this long twice, and takes 0 for no limit.
"""

Context = Callable[[web.Application], AsyncIterator[None]]


def add_lifespan(
    app: web.Application, parts: Components, on_indexed: Callable[[], None] | None = None
) -> None:
    """Register startup and shutdown of the components with the application.

    What is needed longest starts first; shutdown is in reverse order.
    """
    index = parts.index
    if parts.shared_state is not None:
        app.cleanup_ctx.append(parts.shared_state.cleanup_ctx)
    app.cleanup_ctx.extend(_entered(leases.running) for leases in parts.slot_leases.values())
    if parts.link_exchange is not None:
        app.cleanup_ctx.append(_entered(parts.link_exchange.running))
    app.cleanup_ctx.extend(
        [
            _storage(parts.executor, parts.download_log, parts.record_process),
            parts.authenticator.file.cleanup_ctx,
            parts.token_use.cleanup_ctx,
            parts.signing_key.cleanup_ctx,
            parts.revoked_links.file.cleanup_ctx,
            parts.issued_links.cleanup_ctx,
            parts.files.cleanup_ctx,
            _entered(index.running),
            _entered(lambda: parts.digests.running(index.catalogue.notify_shown_differently)),
            parts.permits.cleanup_ctx,
            parts.long_lived.cleanup_ctx,
            parts.connection_timeouts.cleanup_ctx,
            _entered(lambda: background_task(collect_regularly(index.ready, trim), "jobsvc-gc")),
            _entered(lambda: background_task(trim_regularly(), "jobsvc-heap-trim")),
        ]
    )
    if on_indexed is not None:
        work = partial(_notify_indexed, index.ready, on_indexed)
        app.cleanup_ctx.append(_entered(lambda: background_task(work(), "jobsvc-indexed")))
    app.on_shutdown.append(parts.long_lived.end)
    app.on_shutdown.append(_wait_for_downloads(parts.slots, parts.settings.shutdown_grace))


def _storage(disk: StorageExecutor, downloads: DownloadLog, record_process: RecordProcessClient) -> Context:
    async def context(_app: web.Application) -> AsyncIterator[None]:
        yield
        disk.close()
        # A separate thread, because all threads of the storage executor might be stuck.
        ending = ThreadPool("end", threads=1)
        with suppress(StorageUnavailable):
            await ending.run("log", downloads.close)
            await ending.run("records", record_process.close)
        ending.close()

    return context


def _entered(enter: Callable[[], AbstractAsyncContextManager[object]]) -> Context:
    """Return a cleanup_ctx that enters a context manager for the time that the application runs."""

    async def context(_app: web.Application) -> AsyncIterator[None]:
        async with enter():
            yield

    return context


async def _notify_indexed(ready: asyncio.Event, on_indexed: Callable[[], None]) -> None:
    await ready.wait()
    on_indexed()


def _wait_for_downloads(slots: DownloadSlots, grace: float) -> Callable[[web.Application], Awaitable[None]]:
    async def wait(_app: web.Application) -> None:
        try:
            async with asyncio.timeout(grace):
                await slots.wait_all_released()
        except TimeoutError:
            # aiohttp cancels only requests whose client is connected. Every download has to write its line
            # before the download log is closed.
            await slots.cancel_all(SHUTDOWN_TIMEOUT_S)

    return wait
