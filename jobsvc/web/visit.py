"""One look at a job's files for a request, decided by the disk at that moment.

The record is read anew, and in the same hop to a thread what is wanted beneath it. Whose job it is, is asked
of what was known and again of what the disk says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeAlias, TypeVar

from jobsvc.domain.access import Token, require_sight, sees
from jobsvc.domain.errors import JobNotFound, StorageUnavailable
from jobsvc.domain.job import BadRecord
from jobsvc.index.catalogue import Catalogue
from jobsvc.index.freshness import Freshness
from jobsvc.storage.closer import close
from jobsvc.storage.disk import Disk
from jobsvc.storage.reader import Absent, JobsRoot, Reading
from jobsvc.web.sight import sighted

T = TypeVar("T")

Pool: TypeAlias = Callable[[str, Callable[[], Any]], Awaitable[Any]]
"""Runs work for a job in a thread."""


@dataclass(frozen=True, slots=True)
class Visited(Generic[T]):
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
        self._root = root
        self._catalogue = catalogue
        self._freshness = freshness

    async def visit(self, token: Token, job_id: str, work: Callable[[Reading], T]) -> Visited[T]:
        """Read the record in a thread, and call `work` with it there.

        JobNotFound where the job is not, or not any more, the token's; StorageUnavailable; what `work` may.
        """
        known = await self._known(token, job_id)
        return await self._go(self._disk.metadata, known, token, work)

    async def again(self, job_id: str, work: Callable[[Reading], T], *, data: bool = False) -> Visited[T]:
        """Do so for nobody: whose the job is by now, is the caller's to ask.

        `data`: much is read, in the threads that are for that. JobNotFound, StorageUnavailable.
        """
        entry = self._catalogue.get(job_id)
        if entry is None:
            raise JobNotFound
        try:
            pool = self._disk.data if data else self._disk.metadata
            return await self._go(pool, entry.reading, None, work)
        except OSError as fault:
            raise StorageUnavailable from fault

    async def _go(
        self, pool: Pool, known: Reading, token: Token | None, work: Callable[[Reading], T]
    ) -> Visited[T]:
        job_id, begun = known.job.id, monotonic()
        try:
            seen: Visited[T] = await pool(job_id, lambda: _look(self._root, known, token, work))
        except Absent as absent:
            raise await self._absent(job_id) from absent
        if seen.reading is not known:
            self._freshness.learn(job_id, seen.reading, begun)
        return seen

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


def _look(root: JobsRoot, known: Reading, token: Token | None, work: Callable[[Reading], T]) -> Visited[T]:
    """Do it all, in a thread; a bad record leaves the known one standing."""
    try:
        reading = root.read(known.job.id, known)
    except BadRecord:
        reading = known
    if token is not None:
        require_sight(token, reading.job.owner)
    return Visited(reading, work(reading))
