"""Re-read the limits in the config file and the tokens on SIGHUP, without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace

import structlog

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.service.limits import CHANGEABLE
from jobsvc.service.supervision.service_manager import ServiceManager
from jobsvc.settings import OPTIONS, Settings, SettingsError
from jobsvc.storage.threads.thread_pool import ThreadPool

log = structlog.get_logger("jobsvc.service")


class Reloader:
    """Reloads the settings of a running service."""

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        *,
        apply: Callable[[Settings], None],
        refresh_tokens: Callable[[], Awaitable[None]],
        manager: ServiceManager,
    ) -> None:
        """Take the settings in use; `read` reads them again, blocking, and raises SettingsError."""
        self._current = settings
        self._read = read
        self._apply = apply
        self._refresh_tokens = refresh_tokens
        self._manager = manager
        self._threads = ThreadPool("settings", threads=1)  # the config file can be on storage that hangs

    async def run(self, requested: asyncio.Event) -> None:
        """Reload each time that `requested` is set, until cancelled."""
        try:
            while True:
                await requested.wait()
                requested.clear()
                self._manager.reloading()
                await self.reload()
                self._manager.ready()
        finally:
            self._threads.close()

    async def reload(self) -> None:
        """Apply changed limits and tokens, and log what changed; with invalid settings, change no limit."""
        await self._refresh_tokens()
        try:
            found = await self._threads.run("settings", self._read)
        except (SettingsError, StorageUnavailable) as exc:
            log.error("reload-failed", reason=str(exc), effect="the limits stay as they were")  # noqa: TRY400
            return
        changed = [
            field.name
            for field in fields(Settings)
            if getattr(found, field.name) != getattr(self._current, field.name)
        ]
        applied = {name: getattr(found, name) for name in changed if name in CHANGEABLE}
        self._current = replace(self._current, **applied)
        self._apply(self._current)
        names = {option.field: option.name for option in OPTIONS}
        log.info(
            "reload",
            changed={names[name]: value for name, value in applied.items()},
            needs_restart=[names[name] for name in changed if name not in CHANGEABLE],
        )
