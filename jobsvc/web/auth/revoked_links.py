"""Know which download links are revoked: those in revoked-links.json, and those that other instances know.

The links lag behind the file by at most half a second plus the time that storage takes to respond. A link
that is revoked once stays revoked in this process until it expires, even if the file is lost or cannot be
used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from aiohttp import web

from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.descriptor_reserve import DescriptorReserve
from jobsvc.storage.state.revoked_links_file import RevokedLinksState, load_revoked
from jobsvc.web.auth.bearer import RELOAD_INTERVAL_S, ErrorReporter
from jobsvc.web.background_task import background_task


class RevokedLinks:
    """The ids of revoked links. Belongs to the event loop; only `cleanup_ctx` reads the file."""

    def __init__(
        self,
        path: Path,
        disk: StorageExecutor,
        *,
        shared: bool = False,
        clock: Callable[[], float] = time.time,
        on_bad_file: Callable[[Exception], None],
    ) -> None:
        """`path` is the file; `on_bad_file` is called if it cannot be used (see ErrorReporter).

        `shared`: whether the file is in a secrets directory (private_file.py).
        """
        self._path = path
        self._disk = disk
        self._shared = shared
        self._clock = clock
        self._file_errors = ErrorReporter(on_bad_file)
        self._reserve = DescriptorReserve()
        self._state: RevokedLinksState | None = None
        self._expires: dict[str, float] = {}

    def __contains__(self, link_id: object) -> bool:
        """Return whether the link with this id is revoked."""
        return link_id in self._expires

    def known(self) -> dict[str, float]:
        """Return when each revoked link expires, by id, in seconds since the epoch; without expired ones."""
        now = self._clock()
        return {link_id: expires for link_id, expires in self._expires.items() if expires > now}

    def add(self, links: Mapping[str, float]) -> None:
        """Add revoked links, by id with the time when they expire."""
        self._expires = {**self.known(), **links}

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Load the file and reload it on changes until the application ends: a cleanup_ctx.

        Raises BadRevokedLinks or StorageUnavailable if the first load fails: the service does not start.
        """
        self._apply(await self._load())
        async with background_task(self._run(), "jobsvc-revoked-links"):
            yield
            self._disk.close_later(self._reserve)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_INTERVAL_S)
            try:
                state = await self._load()
            except Exception as exc:  # noqa: BLE001 - a watch ended by an error would revoke nothing any more
                self._file_errors.report(exc)
            else:
                self._file_errors.report(None)
                self._apply(state)

    async def _load(self) -> RevokedLinksState:
        return await self._disk.run_control("*revoked-links", self._read)

    def _read(self) -> RevokedLinksState:
        self._reserve.fill()
        return load_revoked(self._path, self._state, self._reserve, shared=self._shared)

    def _apply(self, state: RevokedLinksState) -> None:
        if state is not self._state:
            self._state = state
            self.add(state.links)
