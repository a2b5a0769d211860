"""Record the links that the service creates, for `jobsvc link list`, without delaying a response.

A failed write is counted, and the first in a row is logged; its links are written with the next ones.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import structlog
from aiohttp import web

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.state.link_record import IssuedLink
from jobsvc.storage.state.links_file import LinksFile
from jobsvc.web.background_task import background_task

SAVE_INTERVAL_S: Final = 0.5
MAX_WAITING: Final = 10_000
"""Links that wait to be written; of more, the oldest are not recorded."""
SHUTDOWN_TIMEOUT_S: Final = 1.0

log = structlog.get_logger("jobsvc.web")


class IssuedLinks:
    """Writes a line for each link. Belongs to the event loop."""

    def __init__(self, file: LinksFile, disk: StorageExecutor, on_error: Callable[[], object]) -> None:
        """`on_error` is called for each write that fails."""
        self._file = file
        self._disk = disk
        self._on_error = on_error
        self._waiting: deque[IssuedLink] = deque(maxlen=MAX_WAITING)
        self._failing = False
        self._saving: asyncio.Task[None] | None = None

    def record(self, link: IssuedLink) -> None:
        """Record a link; returns at once."""
        self._waiting.append(link)

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Write what is recorded until the application ends, and drop expired links first: a cleanup_ctx."""
        async with background_task(self._run(), "jobsvc-issued-links"):
            yield
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                if self._saving is not None:
                    await asyncio.shield(self._saving)
                if self._waiting:
                    await self.save()

    async def save(self) -> None:
        """Write the links that wait; without any, this only drops expired ones, if it is time.

        It goes on if the caller is cancelled: the file is written then, too, and each link only once.
        """
        self._saving = asyncio.create_task(self._save(), name="jobsvc-issued-links-save")
        await asyncio.shield(self._saving)

    async def _save(self) -> None:
        links = list(self._waiting)
        try:
            await self._disk.run_background("*issued-links", partial(self._file.append, links, time.time()))
        except StorageUnavailable as exc:
            self._on_error()
            if not self._failing:
                log.warning("links-not-recorded", reason=exc.reason)
            self._failing = True
        else:
            self._failing = False
            for _ in range(min(len(links), len(self._waiting))):
                self._waiting.popleft()

    async def _run(self) -> None:
        await self.save()
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            if self._waiting:
                await self.save()
