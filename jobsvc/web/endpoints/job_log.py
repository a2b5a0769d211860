"""`GET /api/jobs/{id}/logs`: send the current log of a job in any state, or its last lines.

Logs are sent by the same code as downloads. A log can grow meanwhile: the length stated in the head is sent,
and growth is not a change. The connection is aborted only if the log was truncated or rewritten.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from aiohttp import web

from jobsvc.domain.access import JOBS_READ
from jobsvc.observe.download_log import Outcome
from jobsvc.observe.metrics import Metrics
from jobsvc.storage.jobs.growing_log import tail_offset
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.endpoints.log_follow import LogFollowEndpoint
from jobsvc.web.file_transfer.body_writer import BodyWriter
from jobsvc.web.file_transfer.file_response import FileResponder
from jobsvc.web.file_transfer.selection import FileSelection, select_from
from jobsvc.web.file_transfer.transfer_state import TransferState
from jobsvc.web.jobs.file_access import JobFileAccess
from jobsvc.web.jobs.recent_logs import RecentLogs
from jobsvc.web.paths import job_id_of
from jobsvc.web.ratelimit.download_slots import DownloadSlots, Slot

MAX_TAIL_LINES: Final = 10_000
"""Maximum value of `tail`."""

MEDIA_TYPE: Final = "text/plain; charset=utf-8"


class JobLogEndpoint:
    """Handler of `GET /api/jobs/{id}/logs` and its dependencies."""

    def __init__(
        self,
        *,
        root: JobsRoot,
        files: JobFileAccess,
        body_writer: BodyWriter,
        log_follow: LogFollowEndpoint,
        metrics: Metrics,
        recent_logs: RecentLogs,
        slots: DownloadSlots,
    ) -> None:
        """`slots` are those of logs, separate from those of downloads."""
        self._root = root
        self._files = files
        self._file_responder = FileResponder(body_writer, "log", JOBS_READ)
        self._log_follow = log_follow
        self._metrics = metrics
        self._recent_logs = recent_logs
        self._slots = slots

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD."""
        lines = query_params.get_int(request.query, "tail", MAX_TAIL_LINES)
        follow, in_base64 = (query_params.get_flag(request.query, name) for name in ("follow", "base64"))
        if follow:
            return await self._log_follow.handle(request, lines, in_base64=in_base64)
        find = partial(self._find, request, lines)
        return await self._slots.respond(
            request, find, partial(self._answer, request), self._file_responder.release
        )

    async def _answer(
        self, request: web.Request, selection: FileSelection, slot: Slot | None
    ) -> web.StreamResponse:
        return await self._file_responder.answer(
            request, job_id_of(request), selection, {}, self._count_bytes, slot=slot
        )

    async def _find(self, request: web.Request, lines: int | None) -> FileSelection:
        job_id, now = job_id_of(request), time.time()

        def select_log(snapshot: JobSnapshot) -> FileSelection:
            log = self._root.open_log(snapshot.job)
            try:
                base = tail_offset(log, lines)
            except BaseException:
                log.close()
                raise
            return select_from(log, request, MEDIA_TYPE, now, base=base)

        read = partial(self._files.read_record, request[TOKEN], job_id, select_log)
        return (await self._recent_logs.read(job_id, read)).file

    def _count_bytes(self, state: TransferState, _outcome: Outcome) -> None:
        self._metrics.log_bytes.inc(state.sent)
