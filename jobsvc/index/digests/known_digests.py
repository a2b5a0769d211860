"""The digests that are known: in memory, in the digest file and, with an exchange, at all instances."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import structlog

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.observe.metrics import Metrics
from jobsvc.shared_state.digest_exchange import DigestExchange
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.state.digest_file import DigestFile
from jobsvc.storage.state.digest_table import ENTRY_BYTES, DigestTable, is_digest_key

_KEY: Final = "*digests"

log = structlog.get_logger("jobsvc.index")


class KnownDigests:
    """The table of digests, and what is kept the same as it. Event loop only."""

    def __init__(
        self, disk: StorageExecutor, file: DigestFile, metrics: Metrics, exchange: DigestExchange | None
    ) -> None:
        self._disk = disk
        self._file = file
        self._metrics = metrics
        self._exchange = exchange
        self.table: Final = DigestTable()
        self._last_save_failed = False
        """Whether the last write of the digest file failed; only the first failure in a row is logged."""

    def put(self, key: str, entry: bytes) -> None:
        """Add a digest that was computed here (see `pack_entry`), and let the other instances know it."""
        self.table.put(key, entry)
        if self._exchange is not None:
            self._exchange.publish(key, entry)

    async def claim(self, key: str, version: FileVersion) -> bool:
        """Return whether this version of a file should be hashed here; if not, another instance does it."""
        return self._exchange is None or await self._exchange.claim(key, version)

    @asynccontextmanager
    async def running(self, on_digest_known: Callable[[str], None]) -> AsyncIterator[None]:
        """Read the digest file; exchange digests with other instances while the block runs.

        `on_digest_known` gets the job of each digest of a main output that is received.
        """
        await self._load()
        if self._exchange is None:
            yield
            return
        on_received = partial(self._on_received, on_digest_known)
        task = asyncio.create_task(self._exchange.run(on_received, lambda: self.table.entries))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def save(self, key: str, entry: bytes) -> None:
        """Append a digest to the file, so that it survives a restart."""
        await self._save(partial(self._file.append, key, entry))

    def _on_received(self, on_digest_known: Callable[[str], None], key: str, entry: bytes) -> None:
        """Add a digest of the exchange, which was not checked. The file gets it when it is next rewritten."""
        if not is_digest_key(key) or len(entry) != ENTRY_BYTES:
            self._metrics.digests.labels("malformed").inc()
        elif self.table.put_newer(key, entry):
            self._metrics.digests.labels("received").inc()
            if "/" not in key:  # the digest of the main output, whose key is the job's id
                try:
                    on_digest_known(key)
                except Exception:
                    log.exception("index-fault", work="digests")

    async def _load(self) -> None:
        try:
            entries, skipped = await self._disk.run_background(_KEY, self._file.load)
        except (StorageUnavailable, ValueError) as exc:
            self._metrics.digest_file_errors.inc()
            log.warning("digests-not-read", reason=reason_of(exc), effect="digests are computed again")
            return
        self.table.restore(entries)
        if skipped:
            self._metrics.digest_file_errors.inc(skipped)
            log.warning("digests-skipped", lines=skipped, effect="digests are computed again")
        await self._save()

    async def _save(self, add: Callable[[], None] | None = None) -> None:
        """Save digests; a failure is counted, and the first in a row logged.

        `add` appends the newest digest. If the file needs a rewrite, all digests are written instead.
        """
        try:
            if add is not None and not self._file.needs_rewrite:
                await self._disk.run_background(_KEY, add)
            if self._file.needs_rewrite:
                await self._disk.run_background(_KEY, partial(self._file.rewrite, self.table.entries))
        except StorageUnavailable as exc:
            self._metrics.digest_file_errors.inc()
            if not self._last_save_failed:
                log.warning(
                    "digests-not-saved",
                    reason=reason_of(exc),
                    effect="new digests are lost at the next restart",
                )
            self._last_save_failed = True
        else:
            self._last_save_failed = False


def reason_of(exc: Exception) -> str:
    """Return the message of the underlying storage error, or the exception's name if there is none."""
    return str(exc.__cause__ or exc) or type(exc).__name__
