"""`GET /api/jobs/{id}/logs?follow=1`: stream a log as it is written, until the job is final and all is sent.

The id of an event is a position in the log. Nothing about a follower is kept here: a client that reconnects
with the id of its last event, even to another process, continues at that position.
"""

from __future__ import annotations

from base64 import b64encode
from functools import partial
from time import monotonic
from typing import NamedTuple, Protocol

from aiohttp import web

from jobsvc.domain.access import Token, can_see
from jobsvc.domain.errors import JobNotFound, LogMissing, StorageUnavailable
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.missing_files import ABSENCE_GRACE_S
from jobsvc.index.queries.subscriptions import Subscriptions
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.jobs.growing_log import LogPosition, tail_offset
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.jobs.file_access import RETRY_INTERVAL_S, JobFileAccess
from jobsvc.web.jobs.recent_logs import RecentLogs
from jobsvc.web.paths import job_id_of
from jobsvc.web.streaming import sse
from jobsvc.web.streaming.event_stream import EventStream, EventStreams
from jobsvc.web.streaming.log_follower import Encode, LogFollower, LogFollowers, LogUpdate, read_update


class LogFollowEndpoint:
    """Handler of `GET /api/jobs/{id}/logs?follow=1` and its dependencies."""

    def __init__(
        self,
        *,
        root: JobsRoot,
        files: JobFileAccess,
        catalogue: Catalogue,
        subscriptions: Subscriptions,
        streams: EventStreams,
        metrics: Metrics,
        recent_logs: RecentLogs,
    ) -> None:
        self._root = root
        self._files = files
        self._catalogue = catalogue
        self._subscriptions = subscriptions
        self._streams = streams
        self._metrics = metrics
        self._recent_logs = recent_logs
        self._logs = LogFollowers(root, files, subscriptions.notify)
        metrics.logs_followed.set_function(lambda: len(self._logs))

    async def handle(self, request: web.Request, lines: int | None, *, in_base64: bool) -> web.StreamResponse:
        """Stream the last `lines` lines (None: all) and later ones, or what follows Last-Event-ID.

        `in_base64`: as exact bytes, otherwise as text. Raises JobNotFound, or LogMissing if there is no log
        and none will come.
        """
        encode = b64encode if in_base64 else sse.text
        token, job_id = request[TOKEN], job_id_of(request)
        resume_at = LogPosition.parse(sse.last_event_id(request) or "")
        start = await self._start(token, job_id, lines, resume_at)
        if start.is_over:
            return sse.nothing_more()
        async with self._streams.hold(request, "log") as long_lived:
            with (
                self._subscriptions.subscribe_job(job_id, long_lived.notify),
                self._logs.follow(job_id, long_lived.notify) as log,
            ):
                read = partial(_read_update, log, token, encode)
                send_events = partial(self._send_events, read, token, job_id, start.position)
                return await self._streams.respond(long_lived, send_events)

    async def _start(
        self, token: Token, job_id: str, lines: int | None, resume_at: LogPosition | None
    ) -> _Start:
        """Find the start position. Raises LogMissing if there is no log and none will come."""
        find_start = partial(_find_start, self._root, lines, resume_at)
        read = partial(self._files.read_record, token, job_id, find_start)
        try:
            return (await self._recent_logs.read(job_id, read, unread=self._is_final(job_id))).file
        except LogMissing:
            final = self._is_final(job_id)
            if resume_at is None and final:
                raise
            return _Start(resume_at, is_over=final)

    def _is_final(self, job_id: str) -> bool:
        entry = self._catalogue.get(job_id)
        return entry is None or entry.snapshot.job.status.final

    async def _send_events(
        self, read: _Read, token: Token, job_id: str, position: LogPosition | None, stream: EventStream
    ) -> None:
        missing_since: float | None = None
        if position is not None:
            # Otherwise a client whose connection is cut before the first event would miss what is written
            # until it reconnects: its `tail` is counted from the end again.
            await stream.send(sse.position(str(position)))
        while stream.is_open:
            entry = self._catalogue.get(job_id)
            if entry is None or not can_see(token, entry.snapshot.job.owner):
                return await stream.send(sse.removed(job_id))
            status = entry.snapshot.job.status
            update = await read(position, ended=status.final)
            if update is None:
                await stream.wait()
                continue
            is_missing = update.missing and position is not None
            missing_since = (missing_since or monotonic()) if is_missing else None
            position = update.position
            if update.events:
                self._metrics.log_bytes.inc(len(update.events))
                await stream.send(update.events)
            elif missing_since is not None and monotonic() - missing_since < ABSENCE_GRACE_S:
                await stream.wait(RETRY_INTERVAL_S)
            elif status.final:
                end = sse.event("end", b'{"status":"%s"}' % status.encode(), str(position))
                return await stream.send(end)
            if not (update.more or status.final):
                await stream.wait()
        return None


class _Start(NamedTuple):
    """Where a stream starts."""

    position: LogPosition | None
    """None if there is no log yet."""
    is_over: bool = False
    """Whether nothing will follow."""


def _find_start(
    root: JobsRoot, lines: int | None, resume_at: LogPosition | None, snapshot: JobSnapshot
) -> _Start:
    """Find the start position; runs in a pool thread. Raises LogMissing or OSError."""
    if resume_at is not None and not snapshot.job.status.final:
        return _Start(resume_at)
    if resume_at is not None:
        update = read_update(root, resume_at, sse.text, snapshot, ended=True)
        if update.missing:
            raise LogMissing
        return _Start(resume_at, is_over=not update.events)
    log = root.open_log(snapshot.job)
    try:
        return _Start(LogPosition.at(log, tail_offset(log, lines)))
    finally:
        log.close()


class _Read(Protocol):
    """Reads what follows a position: `_read_update` for one follower."""

    async def __call__(self, position: LogPosition | None, *, ended: bool) -> LogUpdate | None: ...


async def _read_update(
    log: LogFollower, token: Token, encode: Encode, position: LogPosition | None, *, ended: bool
) -> LogUpdate | None:
    """Read what follows `position`; return None if that is not possible now, or if the owner has changed."""
    try:
        snapshot, update = await log.update(position, encode, ended=ended)
    except (JobNotFound, StorageUnavailable):
        return None
    return update if can_see(token, snapshot.job.owner) else None
