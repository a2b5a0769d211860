"""Follow growing logs: each log is polled and read once, however many clients follow it.

Every 0.3 s one check determines whether the log or its job has changed. If so its followers are notified, and
each requests what follows its own position. Only the chunks that were read last are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

from jobsvc.domain.errors import JobNotFound, LogMissing, StorageUnavailable
from jobsvc.index.queries.subscriptions import Callback
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.growing_log import LogPosition, read_from
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.jobs.file_access import JobFileAccess
from jobsvc.web.streaming import sse

READ_INTERVAL_S: Final = 0.3
"""Seconds between two checks of a log."""
MAX_READS_PER_S: Final = 2000
"""Maximum checks per second: if more logs are followed, each is checked less often."""
MAX_SHARED_CHUNKS: Final = 4
"""Chunks, of at most 64 KiB, that are kept of a log for followers that request the same a moment later."""


class LogUpdate(NamedTuple):
    """What follows a position in a log."""

    events: bytes
    """The formatted events; empty if there is nothing new."""
    position: LogPosition | None
    """The position after them; None as long as there is no log."""
    more: bool
    """Whether more may be available at once."""
    missing: bool = False
    """Whether the log does not exist now."""


class LogFollower:
    """One job's log while it is followed. Event loop only."""

    def __init__(self, job_id: str, root: JobsRoot, visits: JobFileAccess) -> None:
        self.readers: set[Callback] = set()
        self._job_id = job_id
        self._root = root
        self._files = visits
        self._seen: tuple[FileVersion | None, bool] | None = None
        self._troubled = False
        """Whether a read or check failed because of storage, so that readers have to be notified later."""
        self._shared: dict[tuple[LogPosition | None, bool], asyncio.Task[tuple[JobSnapshot, LogUpdate]]] = {}

    async def update(self, mark: LogPosition | None, *, ended: bool) -> tuple[JobSnapshot, LogUpdate]:
        """Read what follows the position `mark`, and the job's record in the same call.

        `ended`: the job is final, so nothing more is written. Raises JobNotFound or StorageUnavailable.
        """
        key = (mark, ended)
        task = self._shared.get(key)
        if task is None:
            task = asyncio.create_task(self._read(mark, ended=ended))
            self._shared[key] = task
            task.add_done_callback(partial(self._settle, key))
            if len(self._shared) > MAX_SHARED_CHUNKS:
                del self._shared[next(iter(self._shared))]
        return await asyncio.shield(task)

    async def changed(self) -> bool:
        """Check once whether the log has changed, or whether its job has become final."""
        try:
            visited = await self._files.read_unchecked(self._job_id, partial(_identity, self._root))
        except (JobNotFound, StorageUnavailable):
            self._troubled = True
            return False
        seen = (visited.file, visited.snapshot.job.status.final)
        if seen == self._seen and not self._troubled:
            return False
        self._seen, self._troubled = seen, False
        self._shared.clear()
        return True

    async def _read(self, mark: LogPosition | None, *, ended: bool) -> tuple[JobSnapshot, LogUpdate]:
        try:
            work = partial(read_update, self._root, mark, ended=ended)
            visited = await self._files.read_unchecked(self._job_id, work, data=True)
        except StorageUnavailable:
            self._troubled = True
            raise
        return visited.snapshot, visited.file

    def _settle(
        self, key: tuple[LogPosition | None, bool], done: asyncio.Task[tuple[JobSnapshot, LogUpdate]]
    ) -> None:
        """Drop failed and empty results: the same read may soon return something."""
        failed = done.cancelled() or done.exception() is not None
        if (failed or not done.result()[1].events) and self._shared.get(key) is done:
            del self._shared[key]


class LogFollowers:
    """All logs that are being followed."""

    def __init__(
        self,
        root: JobsRoot,
        visits: JobFileAccess,
        wake: Callable[[Iterable[Callback]], None],
        interval: float = READ_INTERVAL_S,
    ) -> None:
        """Notify followers by `wake`, at most every `interval` seconds per log."""
        self._root = root
        self._files = visits
        self._wake = wake
        self._interval = interval
        self._logs: dict[str, tuple[LogFollower, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        """Return the number of logs that are being followed."""
        return len(self._logs)

    @contextmanager
    def follow(self, job_id: str, wake: Callback) -> Iterator[LogFollower]:
        """Follow a job's log for the duration of a block; `wake` is called when it may have changed."""
        if job_id not in self._logs:
            log = LogFollower(job_id, self._root, self._files)
            self._logs[job_id] = log, asyncio.create_task(self._run(log), name="jobsvc-log")
        log, task = self._logs[job_id]
        log.readers.add(wake)
        try:
            yield log
        finally:
            log.readers.discard(wake)
            if not log.readers:
                del self._logs[job_id]
                task.cancel()

    async def _run(self, log: LogFollower) -> None:
        while True:
            await asyncio.sleep(max(self._interval, len(self._logs) / MAX_READS_PER_S))
            if await log.changed():
                self._wake(log.readers)


def read_update(root: JobsRoot, mark: LogPosition | None, reading: JobSnapshot, *, ended: bool) -> LogUpdate:
    """Read what follows `mark` and format the events; runs in a pool thread. Raises OSError."""
    try:
        log = root.open_log(reading.job)
    except LogMissing:
        return LogUpdate(b"", mark, more=False, missing=True)
    try:
        piece = read_from(log, mark, ended=ended)
        begin = LogPosition.at(log, 0)
    finally:
        log.close()
    events = []
    if piece.reset is not None:
        events.append(sse.event("reset", b'{"reason":"%s"}' % piece.reset.encode(), str(begin)))
    if piece.data:
        whole = piece.data.endswith((b"\n", b"\r"))
        events.append(sse.event("log" if whole else "part", sse.text(piece.data), str(piece.position)))
    return LogUpdate(b"".join(events), piece.position, piece.has_more)


def _identity(root: JobsRoot, reading: JobSnapshot) -> FileVersion | None:
    """Return the version of the log, None if there is none; runs in a pool thread. Raises OSError."""
    try:
        log = root.open_log(reading.job)
    except LogMissing:
        return None
    log.close()
    return log.version
