"""Follow growing logs: each log is polled and read once, however many clients follow it.

Every 0.3 s one check determines whether the log or its job has changed. If so its followers are notified, and
each requests what follows its own position. Only the chunks that were read last are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple, TypeAlias

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

Encode: TypeAlias = Callable[[bytes], bytes]
"""Converts bytes of a log into the data of an event."""


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


class _ReadKey(NamedTuple):
    """What a read depends on; its result is shared by all followers for which this is equal."""

    position: LogPosition | None
    encode: Encode
    ended: bool


class LogFollower:
    """One job's log while it is followed. Event loop only."""

    def __init__(self, job_id: str, root: JobsRoot, files: JobFileAccess) -> None:
        self.readers: set[Callback] = set()
        self._job_id = job_id
        self._root = root
        self._files = files
        self._last_seen: tuple[FileVersion | None, bool] | None = None
        self._storage_failed = False
        """Whether a read or check failed because of storage, so that readers have to be notified later."""
        self._shared: dict[_ReadKey, asyncio.Task[tuple[JobSnapshot, LogUpdate]]] = {}

    async def update(
        self, position: LogPosition | None, encode: Encode, *, ended: bool
    ) -> tuple[JobSnapshot, LogUpdate]:
        """Read what follows `position`, and the job's record in the same call.

        `ended`: the job is final, so nothing more is written. Raises JobNotFound or StorageUnavailable.
        """
        key = _ReadKey(position, encode, ended)
        task = self._shared.get(key)
        if task is None:
            task = asyncio.create_task(self._read(position, encode, ended=ended))
            self._shared[key] = task
            task.add_done_callback(partial(self._drop_unusable, key))
            if len(self._shared) > MAX_SHARED_CHUNKS:
                del self._shared[next(iter(self._shared))]
        return await asyncio.shield(task)

    async def changed(self) -> bool:
        """Check once whether the log has changed, or whether its job has become final."""
        try:
            result = await self._files.read_unchecked(self._job_id, partial(_log_version, self._root))
        except (JobNotFound, StorageUnavailable):
            self._storage_failed = True
            return False
        current = (result.file, result.snapshot.job.status.final)
        if current == self._last_seen and not self._storage_failed:
            return False
        self._last_seen, self._storage_failed = current, False
        self._shared.clear()
        return True

    async def _read(
        self, position: LogPosition | None, encode: Encode, *, ended: bool
    ) -> tuple[JobSnapshot, LogUpdate]:
        try:
            read = partial(read_update, self._root, position, encode, ended=ended)
            result = await self._files.read_unchecked(self._job_id, read, data=True)
        except StorageUnavailable:
            self._storage_failed = True
            raise
        return result.snapshot, result.file

    def _drop_unusable(self, key: _ReadKey, task: asyncio.Task[tuple[JobSnapshot, LogUpdate]]) -> None:
        """Drop failed and empty results: the same read may soon return something."""
        failed = task.cancelled() or task.exception() is not None
        if (failed or not task.result()[1].events) and self._shared.get(key) is task:
            del self._shared[key]


class LogFollowers:
    """All logs that are being followed."""

    def __init__(
        self,
        root: JobsRoot,
        files: JobFileAccess,
        notify: Callable[[Iterable[Callback]], None],
        interval: float = READ_INTERVAL_S,
    ) -> None:
        """Notify followers by `notify`, at most every `interval` seconds per log."""
        self._root = root
        self._files = files
        self._notify = notify
        self._interval = interval
        self._logs: dict[str, tuple[LogFollower, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        """Return the number of logs that are being followed."""
        return len(self._logs)

    @contextmanager
    def follow(self, job_id: str, notify: Callback) -> Iterator[LogFollower]:
        """Follow a job's log for the duration of a block; `notify` is called when it may have changed."""
        if job_id not in self._logs:
            log = LogFollower(job_id, self._root, self._files)
            self._logs[job_id] = log, asyncio.create_task(self._run(log), name="jobsvc-log")
        log, task = self._logs[job_id]
        log.readers.add(notify)
        try:
            yield log
        finally:
            log.readers.discard(notify)
            if not log.readers:
                del self._logs[job_id]
                task.cancel()

    async def _run(self, log: LogFollower) -> None:
        while True:
            await asyncio.sleep(max(self._interval, len(self._logs) / MAX_READS_PER_S))
            if await log.changed():
                self._notify(log.readers)


def read_update(
    root: JobsRoot, position: LogPosition | None, encode: Encode, snapshot: JobSnapshot, *, ended: bool
) -> LogUpdate:
    """Read what follows `position` and format the events; runs in a pool thread. Raises OSError."""
    try:
        log = root.open_log(snapshot.job)
    except LogMissing:
        return LogUpdate(b"", position, more=False, missing=True)
    try:
        chunk = read_from(log, position, ended=ended)
        start = LogPosition.at(log, 0)
    finally:
        log.close()
    events = []
    if chunk.reset is not None:
        events.append(sse.event("reset", b'{"reason":"%s"}' % chunk.reset.encode(), str(start)))
    if chunk.data:
        is_complete = chunk.data.endswith((b"\n", b"\r"))
        events.append(sse.event("log" if is_complete else "part", encode(chunk.data), str(chunk.position)))
    return LogUpdate(b"".join(events), chunk.position, chunk.has_more)


def _log_version(root: JobsRoot, snapshot: JobSnapshot) -> FileVersion | None:
    """Return the version of the log, None if there is none; runs in a pool thread. Raises OSError."""
    try:
        log = root.open_log(snapshot.job)
    except LogMissing:
        return None
    log.close()
    return log.version
