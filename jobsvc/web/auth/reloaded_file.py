"""Read a file again when it changes, and report when it cannot be used.

What is known lags behind the file by at most half a second plus the time that storage takes to respond.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Final, Generic, TypeVar

from aiohttp import web

from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.descriptor_reserve import DescriptorReserve
from jobsvc.web.background_task import background_task

RELOAD_INTERVAL_S: Final = 0.5
"""Seconds between two checks of a file."""
ERROR_REPEAT_S: Final = 60.0
"""Seconds after which an error that lasts is reported again."""

State = TypeVar("State")


class ErrorReporter:
    """Calls a function for each error that differs from the one before, and once a minute while it lasts.

    Alerts are about the increase of a counter: they last as long as the error.
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._on_error = on_error
        self._reported: str | None = None
        self._reported_at = -inf

    def report(self, exc: Exception | None) -> None:
        """Report the current error; None if there is none."""
        message, now = None if exc is None else f"{type(exc).__name__}: {exc}", time.monotonic()
        is_due = message != self._reported or now - self._reported_at >= ERROR_REPEAT_S
        if exc is not None and is_due:
            self._reported_at = now
            self._on_error(exc)
        self._reported = message


class ReloadedFile(Generic[State]):
    """Passes the state of a file on whenever it has changed. Event loop only."""

    def __init__(
        self,
        key: str,
        disk: StorageExecutor,
        *,
        load: Callable[[State | None, DescriptorReserve], State],
        apply: Callable[[State], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """`load` reads the file, blocking, and returns the state that it is passed if that is still right.

        `apply` is called with each new state, `on_error` as by ErrorReporter. `key` is for the executor.
        """
        self._key = key
        self._disk = disk
        self._load = load
        self._apply = apply
        self._errors = ErrorReporter(on_error)
        self._reserve = DescriptorReserve()
        self._state: State | None = None

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Read the file, and again on changes, until the application ends: a cleanup_ctx.

        Raises what `load` raises, or StorageUnavailable, if the first read fails: the service does not start.
        """
        await self._reload()
        async with background_task(self._run(), f"jobsvc-{self._key.removeprefix('*')}"):
            yield
            self._disk.close_later(self._reserve)

    async def refresh(self) -> None:
        """Read the file if it changed; errors are reported and never raised."""
        try:
            await self._reload()
        except Exception as exc:  # noqa: BLE001 - a watch ended by an error would revoke nothing any more
            self._errors.report(exc)
        else:
            self._errors.report(None)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_INTERVAL_S)
            await self.refresh()

    async def _reload(self) -> None:
        state = await self._disk.run_control(self._key, self._read)
        if state is not self._state:
            self._state = state
            self._apply(state)

    def _read(self) -> State:
        """Read the file, in a thread; this works even if the process has no free descriptors."""
        self._reserve.fill()
        return self._load(self._state, self._reserve)
