"""One look at a job's files for a request, decided by the disk at that moment.

The record is read anew, and in the same hop to a thread what is wanted beneath it; without one, where all of
it lies in the kernel's memory. Whose job it is, is asked of what was known and again of what the disk says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from aiohttp import web

from jobsvc.domain.access import Token, can_see, require_visible
from jobsvc.domain.errors import JobNotFound, OutputMissing, StorageUnavailable
from jobsvc.domain.status_record import BadRecord
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.catalogue.missing_files import ABSENCE_GRACE_S
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.safe_open import OpenFile, PathNotFound, RecordMissing
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.nonblocking.cached_outputs import CachedOutputs
from jobsvc.storage.threads.background_closer import close
from jobsvc.web.jobs.lookup import get_visible_job

T = TypeVar("T")

KEEP_OPEN_S: Final = 1.0
"""Seconds for which an output is kept open behind its client, and at most twice as long."""

RETRY_INTERVAL_S: Final = 0.1
"""How often a file is looked for again that is missing for a moment."""

Pool: TypeAlias = Callable[[str, Callable[[], Any]], Awaitable[Any]]
"""Runs work for a job in a thread."""


class JobFile(NamedTuple, Generic[T]):
    """The job as the disk has it now, and what was found there."""

    snapshot: JobSnapshot
    file: T

    def close(self) -> None:
        """Close what was found, where that is open."""
        close(self.file)


class JobFileAccess:
    """The way to a job's files."""

    def __init__(
        self, *, disk: StorageExecutor, root: JobsRoot, catalogue: Catalogue, freshness: Freshness
    ) -> None:
        self._disk = disk
        self._cached: CachedOutputs | None = None
        self._root = root
        self._catalogue = catalogue
        self._freshness = freshness

    async def cleanup_ctx(self, _app: web.Application) -> AsyncIterator[None]:
        """Find out whether there is a way to what is in memory that needs no thread: a cleanup_ctx."""
        with suppress(StorageUnavailable):
            self._cached = await self._disk.run_metadata(
                "*cached", partial(CachedOutputs.of, self._root.path, self._disk.close_later)
            )
        if self._cached is None:
            yield
            return
        self._freshness.is_unchanged_nowait = self._cached.is_unchanged_nowait
        tidying = asyncio.create_task(_evict_idle(self._cached), name="jobsvc-kept")
        yield
        self._freshness.is_unchanged_nowait = None
        tidying.cancel()
        self._cached.close()

    async def read_record(self, token: Token, job_id: str, work: Callable[[JobSnapshot], T]) -> JobFile[T]:
        """Read the record in a thread, and call `work` with it there.

        JobNotFound where the job is not, or not any more, the token's; StorageUnavailable; what `work` may.
        """
        known = await self._known(token, job_id)
        return await self._look(
            self._disk.run_metadata, known, partial(_record, self._root, known, token, work)
        )

    async def open_output(
        self, token: Token, job_id: str, work: Callable[[JobSnapshot, OpenFile | None], T]
    ) -> JobFile[T]:
        """Do so where the output is what is wanted: opened in the same walk, and from then on `work`'s.

        It is None where the job is not completed, or its output is not there. Raises as `visit` does.
        """
        known = await self._known(token, job_id)
        if (seen := self._in_memory(known, work)) is not None:
            return seen
        return await self._look(
            self._disk.run_metadata, known, partial(_output, self._root, known, token, work)
        )

    def size_of_output(self, job_id: str) -> int:
        """Say how many bytes a job's output had when it was looked at last; 0 where none is known of."""
        entry = self._catalogue.get(job_id)
        output = None if entry is None else entry.snapshot.output_version
        return 0 if output is None else output.size

    def open_output_nowait(
        self, token: Token, job_id: str, work: Callable[[JobSnapshot, OpenFile | None], T]
    ) -> JobFile[T] | None:
        """Do so on the loop, without a wait; None where it can't be done so. Raises what `work` may."""
        entry = self._catalogue.get(job_id)
        if entry is None or not can_see(token, entry.snapshot.job.owner):
            return None
        return self._in_memory(entry.snapshot, work)

    def _in_memory(
        self, known: JobSnapshot, work: Callable[[JobSnapshot, OpenFile | None], T]
    ) -> JobFile[T] | None:
        output = None if self._cached is None else self._cached.open_output(known)
        return None if output is None else JobFile(known, work(known, output))

    async def read_unchecked(
        self, job_id: str, work: Callable[[JobSnapshot], T], *, data: bool = False
    ) -> JobFile[T]:
        """Do so for nobody: whose the job is by now, is the caller's to ask.

        `data`: much is read, in the threads that are for that. JobNotFound, StorageUnavailable.
        """
        entry = self._catalogue.get(job_id)
        if entry is None:
            raise JobNotFound
        known = entry.snapshot
        try:
            pool = self._disk.run_data if data else self._disk.run_metadata
            return await self._look(pool, known, partial(_record, self._root, known, None, work))
        except OSError as fault:
            raise StorageUnavailable from fault

    async def _look(self, pool: Pool, known: JobSnapshot, look: Callable[..., JobFile[T]]) -> JobFile[T]:
        """Look, and look again while the record or the output is missing only for a moment."""
        job_id, missing, ends = known.job.id, False, monotonic() + ABSENCE_GRACE_S
        while True:
            begun = monotonic()
            try:
                seen: JobFile[T] = await pool(job_id, partial(look, may_lack_record=missing))
            except RecordMissing as absent:
                if not await self._still_known(job_id):
                    raise await self._absent(job_id) from absent
                missing = True
            except PathNotFound as absent:
                raise await self._absent(job_id) from absent
            except OutputMissing:
                if not known.has_output or not await self._still_has_output(job_id) or monotonic() > ends:
                    raise
                await asyncio.sleep(RETRY_INTERVAL_S)
            else:
                if seen.snapshot is not known:
                    self._freshness.record_snapshot(job_id, seen.snapshot, begun)
                return seen

    async def _still_known(self, job_id: str) -> bool:
        """Have the index look; return whether the last good record stands for the missing one."""
        await self._freshness.refresh(job_id)
        return self._catalogue.get(job_id) is not None

    async def _still_has_output(self, job_id: str) -> bool:
        """Have the index look; return whether it takes the output for missing only for a moment."""
        await self._freshness.refresh(job_id)
        entry = self._catalogue.get(job_id)
        return entry is not None and entry.snapshot.has_output

    async def _known(self, token: Token, job_id: str) -> JobSnapshot:
        entry = self._catalogue.get(job_id)
        if entry is not None and can_see(token, entry.snapshot.job.owner):
            return entry.snapshot
        return (await get_visible_job(self._freshness, token, job_id)).snapshot

    async def _absent(self, job_id: str) -> JobNotFound | StorageUnavailable:
        """Say what it means that a job which was known is not there: it is gone, or the storage is away."""
        await self._freshness.refresh(job_id)
        last = self._freshness.cached(job_id)
        return JobNotFound() if last is None or not last.stale else StorageUnavailable()


async def _evict_idle(cached: CachedOutputs) -> None:
    while True:
        await asyncio.sleep(KEEP_OPEN_S)
        cached.evict_idle()


def _record(
    root: JobsRoot,
    known: JobSnapshot,
    token: Token | None,
    work: Callable[[JobSnapshot], T],
    *,
    may_lack_record: bool = False,
) -> JobFile[T]:
    """Do it all, in a thread; a bad record leaves the known one standing.

    So does a missing one with `may_lack_record`; without it, RecordMissing.
    """
    try:
        reading = root.read(known.job.id, known)
    except BadRecord:
        reading = known
    except RecordMissing:
        if not may_lack_record:
            raise
        reading = known
    if token is not None:
        require_visible(token, reading.job.owner)
    return JobFile(reading, work(reading))


def _output(
    root: JobsRoot,
    known: JobSnapshot,
    token: Token,
    work: Callable[[JobSnapshot, OpenFile | None], T],
    *,
    may_lack_record: bool = False,
) -> JobFile[T]:
    """Likewise, with the output."""
    try:
        reading, output = root.read_and_open(known.job.id, known)
    except BadRecord:
        reading, output = known, root.open_output(known.job) if known.has_output else None
    except RecordMissing:
        if not may_lack_record:
            raise
        reading, output = known, root.open_output(known.job) if known.has_output else None
    try:
        require_visible(token, reading.job.owner)
    except BaseException:
        close(output)
        raise
    return JobFile(reading, work(reading, output))
