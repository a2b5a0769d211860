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

from jobsvc.domain.access import Token, require_sight, sees
from jobsvc.domain.errors import JobNotFound, OutputMissing, StorageUnavailable
from jobsvc.domain.status_record import BadRecord
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.catalogue.missing_files import ABSENCE_GRACE_S
from jobsvc.storage.executor import Disk
from jobsvc.storage.files.safe_open import Absent, OpenFile, RecordMissing
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import Reading
from jobsvc.storage.nonblocking.cached_outputs import CachedRoot
from jobsvc.storage.threads.background_closer import close
from jobsvc.web.jobs.lookup import sighted

T = TypeVar("T")

KEPT: Final = 1.0
"""Seconds for which an output is kept open behind its client, and at most twice as long."""

RETRY_INTERVAL_S: Final = 0.1
"""How often a file is looked for again that is missing for a moment."""

Pool: TypeAlias = Callable[[str, Callable[[], Any]], Awaitable[Any]]
"""Runs work for a job in a thread."""


class Visited(NamedTuple, Generic[T]):
    """The job as the disk has it now, and what was found there."""

    reading: Reading
    found: T

    def close(self) -> None:
        """Close what was found, where that is open."""
        close(self.found)


class Visits:
    """The way to a job's files."""

    def __init__(self, *, disk: Disk, root: JobsRoot, catalogue: Catalogue, freshness: Freshness) -> None:
        self._disk = disk
        self._cached: CachedRoot | None = None
        self._root = root
        self._catalogue = catalogue
        self._freshness = freshness

    async def shortened(self, _app: web.Application) -> AsyncIterator[None]:
        """Find out whether there is a way to what is in memory that needs no thread: a cleanup_ctx."""
        with suppress(StorageUnavailable):
            self._cached = await self._disk.metadata(
                "*cached", partial(CachedRoot.of, self._root.path, self._disk.release)
            )
        if self._cached is None:
            yield
            return
        self._freshness.still = self._cached.still
        tidying = asyncio.create_task(_let_go(self._cached), name="jobsvc-kept")
        yield
        self._freshness.still = None
        tidying.cancel()
        self._cached.close()

    async def visit(self, token: Token, job_id: str, work: Callable[[Reading], T]) -> Visited[T]:
        """Read the record in a thread, and call `work` with it there.

        JobNotFound where the job is not, or not any more, the token's; StorageUnavailable; what `work` may.
        """
        known = await self._known(token, job_id)
        return await self._look(self._disk.metadata, known, partial(_record, self._root, known, token, work))

    async def visit_output(
        self, token: Token, job_id: str, work: Callable[[Reading, OpenFile | None], T]
    ) -> Visited[T]:
        """Do so where the output is what is wanted: opened in the same walk, and from then on `work`'s.

        It is None where the job is not completed, or its output is not there. Raises as `visit` does.
        """
        known = await self._known(token, job_id)
        if (seen := self._in_memory(known, work)) is not None:
            return seen
        return await self._look(self._disk.metadata, known, partial(_output, self._root, known, token, work))

    def size_of_output(self, job_id: str) -> int:
        """Say how many bytes a job's output had when it was looked at last; 0 where none is known of."""
        entry = self._catalogue.get(job_id)
        output = None if entry is None else entry.reading.output
        return 0 if output is None else output.size

    def output_at_once(
        self, token: Token, job_id: str, work: Callable[[Reading, OpenFile | None], T]
    ) -> Visited[T] | None:
        """Do so on the loop, without a wait; None where it can't be done so. Raises what `work` may."""
        entry = self._catalogue.get(job_id)
        if entry is None or not sees(token, entry.reading.job.owner):
            return None
        return self._in_memory(entry.reading, work)

    def _in_memory(self, known: Reading, work: Callable[[Reading, OpenFile | None], T]) -> Visited[T] | None:
        output = None if self._cached is None else self._cached.open_output(known)
        return None if output is None else Visited(known, work(known, output))

    async def again(self, job_id: str, work: Callable[[Reading], T], *, data: bool = False) -> Visited[T]:
        """Do so for nobody: whose the job is by now, is the caller's to ask.

        `data`: much is read, in the threads that are for that. JobNotFound, StorageUnavailable.
        """
        entry = self._catalogue.get(job_id)
        if entry is None:
            raise JobNotFound
        known = entry.reading
        try:
            pool = self._disk.data if data else self._disk.metadata
            return await self._look(pool, known, partial(_record, self._root, known, None, work))
        except OSError as fault:
            raise StorageUnavailable from fault

    async def _look(self, pool: Pool, known: Reading, look: Callable[..., Visited[T]]) -> Visited[T]:
        """Look, and look again while the record or the output is missing only for a moment."""
        job_id, missing, ends = known.job.id, False, monotonic() + ABSENCE_GRACE_S
        while True:
            begun = monotonic()
            try:
                seen: Visited[T] = await pool(job_id, partial(look, may_lack_record=missing))
            except RecordMissing as absent:
                if not await self._still_known(job_id):
                    raise await self._absent(job_id) from absent
                missing = True
            except Absent as absent:
                raise await self._absent(job_id) from absent
            except OutputMissing:
                if not known.made or not await self._still_has_output(job_id) or monotonic() > ends:
                    raise
                await asyncio.sleep(RETRY_INTERVAL_S)
            else:
                if seen.reading is not known:
                    self._freshness.learn(job_id, seen.reading, begun)
                return seen

    async def _still_known(self, job_id: str) -> bool:
        """Have the index look; return whether the last good record stands for the missing one."""
        await self._freshness.look(job_id)
        return self._catalogue.get(job_id) is not None

    async def _still_has_output(self, job_id: str) -> bool:
        """Have the index look; return whether it takes the output for missing only for a moment."""
        await self._freshness.look(job_id)
        entry = self._catalogue.get(job_id)
        return entry is not None and entry.reading.made

    async def _known(self, token: Token, job_id: str) -> Reading:
        entry = self._catalogue.get(job_id)
        if entry is not None and sees(token, entry.reading.job.owner):
            return entry.reading
        return (await sighted(self._freshness, token, job_id)).reading

    async def _absent(self, job_id: str) -> JobNotFound | StorageUnavailable:
        """Say what it means that a job which was known is not there: it is gone, or the storage is away."""
        await self._freshness.look(job_id)
        last = self._freshness.at_once(job_id)
        return JobNotFound() if last is None or not last.stale else StorageUnavailable()


async def _let_go(cached: CachedRoot) -> None:
    while True:
        await asyncio.sleep(KEPT)
        cached.let_go()


def _record(
    root: JobsRoot,
    known: Reading,
    token: Token | None,
    work: Callable[[Reading], T],
    *,
    may_lack_record: bool = False,
) -> Visited[T]:
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
        require_sight(token, reading.job.owner)
    return Visited(reading, work(reading))


def _output(
    root: JobsRoot,
    known: Reading,
    token: Token,
    work: Callable[[Reading, OpenFile | None], T],
    *,
    may_lack_record: bool = False,
) -> Visited[T]:
    """Likewise, with the output."""
    try:
        reading, output = root.read_and_open(known.job.id, known)
    except BadRecord:
        reading, output = known, root.open_output(known.job) if known.made else None
    except RecordMissing:
        if not may_lack_record:
            raise
        reading, output = known, root.open_output(known.job) if known.made else None
    try:
        require_sight(token, reading.job.owner)
    except BaseException:
        close(output)
        raise
    return Visited(reading, work(reading, output))
