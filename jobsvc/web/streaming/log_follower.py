"""Logs that are followed: however many follow one, it is looked at once, and what came is read once.

One look a third of a second asks whether the log, or its job, has changed; who follows it is woken then, and
asks for what comes behind his own place. Nothing of a log is kept but what was read last.
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
"""Seconds between two looks at a log."""
MAX_READS_PER_S: Final = 2000
"""Looks a second at most: where more logs are followed, each is looked at less often."""
MAX_SHARED_CHUNKS: Final = 4
"""Pieces of 64 KiB at most that are kept of a log, for those who ask for the same a moment later."""


class LogUpdate(NamedTuple):
    """What comes behind a place in a log."""

    events: bytes
    """As they are sent; empty where nothing new is there."""
    position: LogPosition | None
    """The place behind them; None as long as there is no log."""
    more: bool
    """Whether there may be more at once."""
    missing: bool = False
    """Whether there is no log now."""


class LogFollower:
    """One job's log while somebody follows it. Loop-owned."""

    def __init__(self, job_id: str, root: JobsRoot, visits: JobFileAccess) -> None:
        self.readers: set[Callback] = set()
        self._job_id = job_id
        self._root = root
        self._files = visits
        self._seen: tuple[FileVersion | None, bool] | None = None
        self._troubled = False
        """Whether storage kept something from a reader, who is to ask again."""
        self._shared: dict[tuple[LogPosition | None, bool], asyncio.Task[tuple[JobSnapshot, LogUpdate]]] = {}

    async def update(self, mark: LogPosition | None, *, ended: bool) -> tuple[JobSnapshot, LogUpdate]:
        """Read on behind a mark, and the job in the same visit. JobNotFound, StorageUnavailable.

        `ended` says that nobody writes any more.
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
        """Look once whether the log or the job's being final has changed."""
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
        """Keep only what has something in it: the same question may have another answer soon."""
        failed = done.cancelled() or done.exception() is not None
        if (failed or not done.result()[1].events) and self._shared.get(key) is done:
            del self._shared[key]


class LogFollowers:
    """All logs that are followed now."""

    def __init__(
        self,
        root: JobsRoot,
        visits: JobFileAccess,
        wake: Callable[[Iterable[Callback]], None],
        interval: float = READ_INTERVAL_S,
    ) -> None:
        """Have followers woken by `wake`, at most every `interval` seconds."""
        self._root = root
        self._files = visits
        self._wake = wake
        self._interval = interval
        self._logs: dict[str, tuple[LogFollower, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        """Count them."""
        return len(self._logs)

    @contextmanager
    def follow(self, job_id: str, wake: Callback) -> Iterator[LogFollower]:
        """Follow a job's log for the length of a block; `wake` is called when there may be news."""
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
    """Read on and write the events, in a thread; OSError."""
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
    """Say which version of a log is there, in a thread; OSError."""
    try:
        log = root.open_log(reading.job)
    except LogMissing:
        return None
    log.close()
    return log.version
