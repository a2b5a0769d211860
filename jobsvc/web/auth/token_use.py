"""Write when tokens were last used to the state directory, at most once a minute, for `jobsvc token list`.

A request only records the time in the authenticator's `used`. Failed writes are counted, and the first in a
row is logged; their times are written with the next write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.state.token_use_file import record_use
from jobsvc.web.auth.bearer import TokenAuthenticator
from jobsvc.web.background_task import background_task

SAVE_INTERVAL_S: Final = 60.0
SHUTDOWN_TIMEOUT_S: Final = 1.0

log = structlog.get_logger("jobsvc.web")


class TokenUse:
    """Saves the time of each token's last use. Belongs to the event loop."""

    def __init__(
        self,
        authenticator: TokenAuthenticator,
        path: Path,
        disk: StorageExecutor,
        on_error: Callable[[], None],
    ) -> None:
        """`path` is the file with the times; `on_error` is called for each write that fails."""
        self._authenticator = authenticator
        self._path = path
        self._disk = disk
        self._on_error = on_error
        self._failing = False

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Save once a minute and when the application ends: a cleanup_ctx."""
        async with background_task(self._run(), "jobsvc-token-use"):
            yield
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                await self.save()

    async def save(self) -> None:
        """Write the times recorded since the last save; do nothing if there are none."""
        used = dict(self._authenticator.used)
        if not used:
            return
        self._authenticator.used.clear()
        try:
            write = partial(record_use, self._path, used, self._authenticator.ids())
            await self._disk.run_background("*token-use", write)
        except StorageUnavailable as exc:
            self._authenticator.used.update({**used, **self._authenticator.used})
            self._on_error()
            if not self._failing:
                log.warning("token-use-not-written", file=str(self._path), reason=exc.reason)
            self._failing = True
        else:
            self._failing = False

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            await self.save()
