"""`GET /api/jobs/{id}/logs?follow=1`: stream a log as it is written, until the job is final and all is sent.

The id of an event is a position in the log. Nothing about a follower is kept here: a client that reconnects
with the id of its last event, even to another process, continues at that position.
"""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import NamedTuple

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
from jobsvc.web.endpoints.recent_logs import RecentLogs
from jobsvc.web.jobs.file_access import RETRY_INTERVAL_S, JobFileAccess
from jobsvc.web.paths import job_id_of
from jobsvc.web.streaming import sse
from jobsvc.web.streaming.event_stream import EventStream, EventStreams
from jobsvc.web.streaming.log_follower import LogFollower, LogFollowers, LogUpdate, read_update


class LogFollowEndpoint:
    """Handler of `GET /api/jobs/{id}/logs?follow=1` and its dependencies."""

    def __init__(
        self,
        *,
        root: JobsRoot,
        visits: JobFileAccess,
        catalogue: Catalogue,
        changes: Subscriptions,
        streams: EventStreams,
        metrics: Metrics,
        recent: RecentLogs,
    ) -> None:
        self._root = root
        self._visits = visits
        self._catalogue = catalogue
        self._changes = changes
        self._streams = streams
        self._metrics = metrics
        self._recent = recent
        self._logs = LogFollowers(root, visits, changes.notify)
        metrics.logs_followed.set_function(lambda: len(self._logs))

    async def handle(self, request: web.Request, lines: int | None) -> web.StreamResponse:
        """Stream the last `lines` lines (None: all) and later ones, or what follows Last-Event-ID.

        Raises JobNotFound, or LogMissing if there is no log and none will come.
        """
        token, job_id = request[TOKEN], job_id_of(request)
        known = LogPosition.parse(sse.offered(request) or "")
        start = await self._start(token, job_id, lines, known)
        if start.is_over:
            return sse.nothing_more()
        with (
            self._streams.hold(request, "log") as stay,
            self._changes.subscribe_job(job_id, stay.notify),
            self._logs.follow(job_id, stay.notify) as log,
        ):
            tell = partial(self._send_events, log, token, job_id, start.position)
            return await self._streams.respond(stay, tell)

    async def _start(self, token: Token, job_id: str, lines: int | None, known: LogPosition | None) -> _Start:
        """Find the start position. Raises LogMissing if there is no log and none will come."""
        visit = partial(self._visits.read_record, token, job_id, partial(_begin, self._root, lines, known))
        try:
            return (await self._recent.read(job_id, visit, unread=self._is_final(job_id))).file
        except LogMissing:
            final = self._is_final(job_id)
            if known is None and final:
                raise
            return _Start(known, is_over=final)

    def _is_final(self, job_id: str) -> bool:
        entry = self._catalogue.get(job_id)
        return entry is None or entry.snapshot.job.status.final

    async def _send_events(
        self, log: LogFollower, token: Token, job_id: str, mark: LogPosition | None, stream: EventStream
    ) -> None:
        missing_since: float | None = None
        while stream.open:
            entry = self._catalogue.get(job_id)
            if entry is None or not can_see(token, entry.snapshot.job.owner):
                return await stream.send(sse.removed(job_id))
            status = entry.snapshot.job.status
            news = await _news(log, token, mark, ended=status.final)
            if news is None:
                await stream.wait()
                continue
            missing_since = (missing_since or monotonic()) if news.missing and mark is not None else None
            mark = news.position
            if news.events:
                self._metrics.log_bytes.inc(len(news.events))
                await stream.send(news.events)
            elif missing_since is not None and monotonic() - missing_since < ABSENCE_GRACE_S:
                await stream.wait(RETRY_INTERVAL_S)
            elif status.final:
                return await stream.send(sse.event("end", b'{"status":"%s"}' % status.encode(), str(mark)))
            if not (news.more or status.final):
                await stream.wait()
        return None


class _Start(NamedTuple):
    """Where a stream starts."""

    position: LogPosition | None
    """None if there is no log yet."""
    is_over: bool = False
    """Whether nothing will follow."""


def _begin(root: JobsRoot, lines: int | None, known: LogPosition | None, reading: JobSnapshot) -> _Start:
    """Find the start position; runs in a pool thread. Raises LogMissing or OSError."""
    if known is not None and not reading.job.status.final:
        return _Start(known)
    if known is not None:
        news = read_update(root, known, reading, ended=True)
        if news.missing:
            raise LogMissing
        return _Start(known, is_over=not news.events)
    log = root.open_log(reading.job)
    try:
        return _Start(LogPosition.at(log, tail_offset(log, lines)))
    finally:
        log.close()


async def _news(log: LogFollower, token: Token, mark: LogPosition | None, *, ended: bool) -> LogUpdate | None:
    """Read what follows `mark`; return None if that is not possible now, or if the owner has changed."""
    try:
        reading, news = await log.update(mark, ended=ended)
    except (JobNotFound, StorageUnavailable):
        return None
    return news if can_see(token, reading.job.owner) else None
