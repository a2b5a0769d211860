"""Read a job's record and open its files for a request, as they are on disk at that time.

The record is read again and the file is opened in one call in a pool thread, or without a thread if
everything is in the kernel's memory. Ownership is checked with the known snapshot and again with the record
on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar

from aiohttp import web

from jobsvc.domain.access import Token, can_see
from jobsvc.domain.errors import FileMissing, JobNotFound, OutputMissing, StorageUnavailable
from jobsvc.domain.job import Status
from jobsvc.index.catalogue.catalogue_updater import CatalogueUpdater
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.catalogue.missing_files import ABSENCE_GRACE_S
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.safe_open import OpenFile, PathNotFound, RecordMissing
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.nonblocking.cached_outputs import CachedOutputs
from jobsvc.web.background_task import background_task
from jobsvc.web.jobs.lookup import get_visible_job
from jobsvc.web.jobs.record_reads import JobFile, read_and_open, read_record

T = TypeVar("T")

KEEP_OPEN_S: Final = 1.0
"""Minimum seconds for which an output is kept open after a request; the maximum is twice as long."""

RETRY_INTERVAL_S: Final = 0.1
"""Seconds between two attempts to open a file that may be missing only for a moment."""

RunInPool: TypeAlias = Callable[[str, Callable[[], Any]], Awaitable[Any]]
"""Runs a function for a job id in a pool thread."""


class JobFileAccess:
    """Access to the files of jobs."""

    def __init__(
        self,
        *,
        disk: StorageExecutor,
        root: JobsRoot,
        catalogue: Catalogue,
        updater: CatalogueUpdater,
        freshness: Freshness,
    ) -> None:
        self._disk = disk
        self._cached: CachedOutputs | None = None
        self._root = root
        self._catalogue = catalogue
        self._updater = updater
        self._freshness = freshness

    async def open_output(
        self, token: Token, job_id: str, fn: Callable[[JobSnapshot, OpenFile | None], T]
    ) -> JobFile[T]:
        """Read the record, open the output in the same call, and pass both to `fn`.

        `fn` owns the file and has to close it. It is None if the job is not completed, or has no output on
        disk. No thread is used if everything is in memory. Raises the same as `read_record`.
        """
        known = await self._visible_snapshot(token, job_id)
        if self._cached is not None:
            job_file = _in_memory(self._cached.open_output, known, fn)
            if job_file is not None:
                return job_file
        return await self._read_on_disk(
            self._disk.run_metadata, known, partial(read_and_open, self._root, known, token, fn)
        )

    async def open_file(
        self,
        token: Token,
        job_id: str,
        path_in: Callable[[JobSnapshot], str],
        fn: Callable[[JobSnapshot, OpenFile | None], T],
    ) -> JobFile[T]:
        """Read the record, open the file at the path that `path_in` returns for it, and pass both to `fn`.

        `fn` owns the file; it is None if the job is not completed. No thread is used if everything is in
        memory. Raises the same as `read_record`, FileMissing, and what `path_in` raises.
        """
        known = await self._visible_snapshot(token, job_id)
        job_file = _in_memory(partial(self._open_cached, path_in), known, fn)
        if job_file is not None:
            return job_file

        def open_and_call(snapshot: JobSnapshot) -> T:
            if snapshot.job.status is not Status.COMPLETED:
                return fn(snapshot, None)
            return fn(snapshot, self._open_path(snapshot, path_in(snapshot)))

        return await self.read_record(token, job_id, open_and_call)

    def open_file_nowait(
        self,
        token: Token,
        job_id: str,
        path_in: Callable[[JobSnapshot], str],
        fn: Callable[[JobSnapshot, OpenFile | None], T],
    ) -> JobFile[T] | None:
        """Like `open_file`, on the event loop and without blocking; None if that is not possible.

        Raises what `fn` raises.
        """
        entry = self._catalogue.get(job_id)
        if entry is None or not can_see(token, entry.snapshot.job.owner):
            return None
        return _in_memory(partial(self._open_cached, path_in), entry.snapshot, fn)

    def _open_cached(self, path_in: Callable[[JobSnapshot], str], known: JobSnapshot) -> OpenFile | None:
        if self._cached is None or known.job.status is not Status.COMPLETED:
            return None
        try:
            return self._cached.open_file(known, path_in(known))
        except FileMissing:  # the outputs may have changed since they were read
            return None

    def _open_path(self, snapshot: JobSnapshot, path: str) -> OpenFile:
        try:
            return self._root.open_path(snapshot.job, path, snapshot)
        except PathNotFound as exc:
            raise FileMissing("The file does not exist.") from exc

    def open_output_nowait(
        self, token: Token, job_id: str, fn: Callable[[JobSnapshot, OpenFile | None], T]
    ) -> JobFile[T] | None:
        """Like `open_output`, on the event loop and without blocking; None if that is not possible.

        The file must not be used after the caller has returned to the event loop. Raises what `fn` raises.
        """
        entry = self._catalogue.get(job_id)
        if self._cached is None or entry is None or not can_see(token, entry.snapshot.job.owner):
            return None
        return _in_memory(self._cached.borrow_output, entry.snapshot, fn)

    async def read_record(self, token: Token, job_id: str, fn: Callable[[JobSnapshot], T]) -> JobFile[T]:
        """Read the record in a pool thread, and call `fn` with its snapshot there.

        Raises JobNotFound if the token cannot see the job (any more); StorageUnavailable; what `fn` raises.
        """
        known = await self._visible_snapshot(token, job_id)
        return await self._read_on_disk(
            self._disk.run_metadata, known, partial(read_record, self._root, known, token, fn)
        )

    async def read_unchecked(
        self, job_id: str, fn: Callable[[JobSnapshot], T], *, data: bool = False
    ) -> JobFile[T]:
        """Like `read_record`, but without an ownership check: the caller checks the owner of the snapshot.

        `data`: use the data pool, for large reads. Raises JobNotFound or StorageUnavailable.
        """
        entry = self._catalogue.get(job_id)
        if entry is None:
            raise JobNotFound
        known = entry.snapshot
        try:
            pool = self._disk.run_data if data else self._disk.run_metadata
            return await self._read_on_disk(pool, known, partial(read_record, self._root, known, None, fn))
        except OSError as exc:
            raise StorageUnavailable from exc

    def size_of_output(self, job_id: str) -> int:
        """Return the bytes of a job's output when it was last checked; 0 if no output is known."""
        entry = self._catalogue.get(job_id)
        version = None if entry is None else entry.snapshot.output_version
        return 0 if version is None else version.size

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Enable access without threads if the root's file system allows it; for aiohttp's cleanup_ctx."""
        with suppress(StorageUnavailable):
            self._cached = await self._disk.run_metadata(
                "*cached", partial(CachedOutputs.of, self._root.path, self._disk.close_later)
            )
        if self._cached is None:
            yield
            return
        self._freshness.is_unchanged_nowait = self._cached.is_unchanged_nowait
        async with background_task(_evict_idle(self._cached), "jobsvc-cached-outputs"):
            yield
        self._freshness.is_unchanged_nowait = None
        self._cached.close()

    async def _visible_snapshot(self, token: Token, job_id: str) -> JobSnapshot:
        entry = self._catalogue.get(job_id)
        if entry is not None and can_see(token, entry.snapshot.job.owner):
            return entry.snapshot
        return (await get_visible_job(self._freshness, token, job_id)).snapshot

    async def _read_on_disk(
        self, pool: RunInPool, known: JobSnapshot, read: Callable[..., JobFile[T]]
    ) -> JobFile[T]:
        """Call `read` in a pool thread; repeat it while the record or output is missing only for a moment."""
        job_id, missing, deadline = known.job.id, False, monotonic() + ABSENCE_GRACE_S
        while True:
            started_at = monotonic()
            try:
                job_file: JobFile[T] = await pool(job_id, partial(read, may_lack_record=missing))
            except RecordMissing as exc:
                await self._freshness.refresh(job_id)
                if self._catalogue.get(job_id) is None:
                    raise await self._missing_error(job_id) from exc
                missing = True  # the last good record replaces it
            except PathNotFound as exc:
                raise await self._missing_error(job_id) from exc
            except OutputMissing:
                if (
                    known.output_version is None
                    or not await self._refresh_has_file(job_id)
                    or monotonic() > deadline
                ):
                    raise
                await asyncio.sleep(RETRY_INTERVAL_S)
            else:
                if job_file.snapshot is not known:
                    self._updater.store(job_id, job_file.snapshot, started_at)
                return job_file

    async def _refresh_has_file(self, job_id: str) -> bool:
        """Refresh the job in the index; return whether its file counts as missing only for a moment."""
        await self._freshness.refresh(job_id)
        entry = self._catalogue.get(job_id)
        return entry is not None and entry.snapshot.output_version is not None

    async def _missing_error(self, job_id: str) -> JobNotFound | StorageUnavailable:
        """Return the error for a known job that is missing on disk: deleted, or storage is unavailable."""
        await self._freshness.refresh(job_id)
        cached = self._freshness.cached(job_id)
        return JobNotFound() if cached is None or not cached.stale else StorageUnavailable()


async def _evict_idle(cached: CachedOutputs) -> None:
    while True:
        await asyncio.sleep(KEEP_OPEN_S)
        cached.evict_idle()


def _in_memory(
    open_output: Callable[[JobSnapshot], OpenFile | None],
    known: JobSnapshot,
    fn: Callable[[JobSnapshot, OpenFile | None], T],
) -> JobFile[T] | None:
    file = open_output(known)
    return None if file is None else JobFile(known, fn(known, file))
