"""Compute SHA-256 digests of outputs on request, in the background, and store them by file version.

Hashing every output would read the farm's storage twice, so digests are computed on demand: the first
response has no digest, later ones have it. One file is hashed at a time, in slices with pauses between them:
at most 50 % of the time, 5 % while downloads are in progress. Owners are served in turns of one second, so
that a huge file of one owner does not delay the others. A read that hangs is abandoned to its thread.

With an exchange, all instances know what one has computed, and one of them hashes a file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import monotonic
from typing import Final

import structlog

from jobsvc.domain.errors import StorageUnavailable
from jobsvc.domain.job import Job
from jobsvc.index.digests.digest_queue import DigestQueue, DigestRequest
from jobsvc.index.digests.known_digests import KnownDigests, reason_of
from jobsvc.index.digests.recent_failures import RETRY_AFTER_S, RecentFailures
from jobsvc.observe.metrics import Metrics
from jobsvc.shared_state.digest_exchange import DigestExchange
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.file_version import TIMESTAMP_GRANULARITY_NS, FileVersion
from jobsvc.storage.jobs.output_hash import HashProgress, OutputChanged, OutputHasher
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.state.digest_file import DigestFile
from jobsvc.storage.state.digest_table import digest_key, pack_entry

PAUSE_FACTOR_IDLE: Final = 1.0
"""Pause after a slice as a multiple of its duration: hashing gets 50 % of the time."""
PAUSE_FACTOR_BUSY: Final = 19.0
"""Pause factor while downloads are in progress: hashing gets 5 % of the time.

A download that needs the same CPU core loses half of that. Not 0 %: with slow clients, downloads can be in
progress for days. Not SCHED_IDLE: the thread could be descheduled while holding the GIL.
"""
MAX_BYTES_PER_S: Final = 256_000_000
"""Maximum bytes per second, since renders use the storage too."""
CLAIMED_RETRY_S: Final = 2.0
"""Seconds after which a file that another instance hashes is looked at again."""
TURN_S: Final = 1.0
"""Seconds per turn; then the next owner is served, and after the others the next file of this owner."""

log = structlog.get_logger("jobsvc.index")


class DigestService:
    """The known digests and the queue of requested ones. Event loop only."""

    def __init__(
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        file: DigestFile,
        metrics: Metrics,
        *,
        is_busy: Callable[[], bool],
        clock: Callable[[], float] = monotonic,
        on_crc32: Callable[[FileVersion, int], object] | None = None,
        exchange: DigestExchange | None = None,
    ) -> None:
        """`is_busy` returns whether downloads are in progress.

        `on_crc32` gets the CRC-32 of each hashed output of a job that lists its outputs, for its zip archive.
        """
        self._disk = disk
        self._root = root
        self._metrics = metrics
        self._is_busy = is_busy
        self._clock = clock
        self._on_crc32 = on_crc32
        self._known_digests = KnownDigests(disk, file, metrics, exchange)
        self._table = self._known_digests.table
        self._queue = DigestQueue()
        self._in_progress: DigestRequest | None = None
        self._recently_failed = RecentFailures()
        self._turn_owner: str | None = None
        self._turn_ends = 0.0
        """When the turn of `_turn_owner` ends (monotonic seconds)."""
        self._pause = 0.0
        """Seconds to wait before the next slice."""
        self._wake = asyncio.Event()
        metrics.digests_known.set_function(lambda: len(self._table))
        metrics.digests_waiting.set_function(lambda: len(self._queue) + (self._in_progress is not None))

    def known(self, snapshot: JobSnapshot) -> bytes | None:
        """Return the digest of the output version in this snapshot; None if it is not known."""
        if snapshot.job.id not in self._table or (output := snapshot.output_version) is None:
            return None
        return self._table.find(snapshot.job.id, output)

    def known_file(self, job: Job, path: str, version: FileVersion) -> bytes | None:
        """Return the digest of a version of the file at a path of the record; None if it is not known."""
        return self._table.find(digest_key(job.id, _other_path(job, path)), version)

    def request(self, job: Job, version: FileVersion, path: str | None = None) -> bytes | None:
        """Return the digest of a version of the main output, or of the file at a path of the record.

        If it is not known, request it and return None. Above the owner's limit a request is only counted.
        """
        path = _other_path(job, path)
        key = digest_key(job.id, path)
        digest = self._table.find(key, version)
        if digest is None:
            self._enqueue(job, version, path, key)
        return digest

    def request_files(self, job: Job, files: Iterable[tuple[str, FileVersion]]) -> None:
        """Request the digests of files, by their paths in the record, up to the owner's limit."""
        for path, version in files:
            other_path = _other_path(job, path)
            key = digest_key(job.id, other_path)
            is_known = self._table.find(key, version) is not None
            if not is_known and not self._enqueue(job, version, other_path, key):
                return

    @asynccontextmanager
    async def running(self, on_digest_known: Callable[[str], None]) -> AsyncIterator[None]:
        """Compute digests while the block runs; `on_digest_known` gets the job of each new digest."""
        async with self._known_digests.running(on_digest_known):
            task = asyncio.create_task(self._run(on_digest_known))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait({task})

    def _enqueue(self, job: Job, version: FileVersion, path: str | None, key: str) -> bool:
        """Queue a request unless it is redundant; return False if the owner's limit is reached."""
        if self._is_redundant(key, version):
            return True
        now = self._clock()
        # A change within one timestamp tick would go unnoticed, so wait until the version is stable.
        due = now if version.is_stable(time.time_ns()) else now + TIMESTAMP_GRANULARITY_NS / 1e9
        if self._queue.add(DigestRequest(job, version, due, path=path)):
            self._wake.set()
            return True
        self._metrics.digests.labels("turned-away").inc()
        return False

    def _is_redundant(self, key: str, version: FileVersion) -> bool:
        """Return whether this version is being hashed now, or failed less than RETRY_AFTER_S ago."""
        current = self._in_progress
        if current is not None and (current.key, current.version) == (key, version):
            return True
        return self._recently_failed.includes(key, version, self._clock())

    async def _run(self, on_digest_known: Callable[[str], None]) -> None:
        while True:
            request = await self._next()
            self._in_progress = request
            try:
                await self._compute(request, on_digest_known)
            except Exception:
                log.exception("index-fault", work="digests")
            finally:
                self._in_progress = None

    async def _next(self) -> DigestRequest:
        while (request := self._take()) is None:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._queue.due - self._clock(), RETRY_AFTER_S)):
                    await self._wake.wait()
        return request

    def _take(self) -> DigestRequest | None:
        now = self._clock()
        owner = self._turn_owner if now < self._turn_ends else None
        request = self._queue.take(now, owner)
        if request is not None and request.job.owner != owner:
            self._turn_owner, self._turn_ends = request.job.owner, now + TURN_S
        return request

    async def _compute(self, request: DigestRequest, on_digest_known: Callable[[str], None]) -> None:
        if self._table.find(request.key, request.version) is not None:
            return  # received while the request was queued
        if not await self._known_digests.claim(request.key, request.version):
            self._queue.put_back(request._replace(due=self._clock() + CLAIMED_RETRY_S))
            return
        try:
            hasher = await self._hash(request)
        except OutputChanged:
            self._record_failure(request, "changed", "the output is no longer the requested version")
        except StorageUnavailable as exc:
            self._record_failure(request, "failed", reason_of(exc))
        else:
            if hasher.digest is None:
                self._queue.put_back(request._replace(progress=hasher.progress))
                return
            if self._on_crc32 is not None and hasher.progress.crc32 is not None:
                self._on_crc32(request.version, hasher.progress.crc32)
            entry = pack_entry(request.version, hasher.digest)
            self._known_digests.put(request.key, entry)
            self._metrics.digests.labels("computed").inc()
            if request.path is None:
                on_digest_known(request.job.id)
            await self._known_digests.save(request.key, entry)

    async def _hash(self, request: DigestRequest) -> OutputHasher:
        """Hash at least one slice, until the digest is known or the turn is over.

        Raises OutputChanged or StorageUnavailable.
        """
        job_id, in_thread = request.job.id, False
        is_in_archive = request.job.lists_outputs or request.path is not None
        with_crc32 = self._on_crc32 is not None and is_in_archive
        progress = request.progress or HashProgress(with_crc32=with_crc32)
        create_hasher = partial(
            OutputHasher, self._root, request.job, request.version, progress, request.path
        )
        hasher = await self._disk.run_background(job_id, create_hasher)
        try:
            while hasher.digest is None:
                await asyncio.sleep(self._pause)
                started_at, in_thread = self._clock(), True
                size = await self._disk.run_background(job_id, hasher.hash_slice, hasher)
                in_thread = False
                self._pause = pause_after(self._clock() - started_at, size, is_busy=self._is_busy())
                self._metrics.digest_bytes.inc(size)
                if self._clock() >= self._turn_ends:
                    break
            return hasher
        finally:
            if not in_thread:
                self._disk.close_later(hasher)

    def _record_failure(self, request: DigestRequest, outcome: str, reason: str) -> None:
        self._recently_failed.add(request.key, request.version, self._clock())
        self._metrics.digests.labels(outcome).inc()
        log.warning("digest-not-computed", job=request.job.id, size=request.version.size, reason=reason)


def _other_path(job: Job, path: str | None) -> str | None:
    """Return the path, or None for that of the main output."""
    return None if path == job.output_path else path


def pause_after(seconds: float, size: int, *, is_busy: bool) -> float:
    """Return the seconds to pause after a slice of `size` bytes that took `seconds`."""
    return max(
        seconds * (PAUSE_FACTOR_BUSY if is_busy else PAUSE_FACTOR_IDLE), size / MAX_BYTES_PER_S - seconds
    )
