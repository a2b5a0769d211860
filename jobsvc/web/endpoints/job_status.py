"""`GET /api/jobs/{id}`: return a job's progress, why it failed, and the URL of its output."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from jobsvc.domain.access import Token, can_see, is_admin
from jobsvc.domain.job import Status
from jobsvc.index.catalogue.freshness import CachedJob, Freshness
from jobsvc.index.queries.log_tail_cache import LogTailCache
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.connection.fast_request import FastRequest, PreparedResponse
from jobsvc.web.endpoints.long_poll import LongPoll
from jobsvc.web.jobs.addresses import came_by_proxy
from jobsvc.web.jobs.lookup import get_visible_job
from jobsvc.web.jobs.owner_member import shown_to
from jobsvc.web.jobs.representation import RenderedJob, RepresentationCache
from jobsvc.web.paths import job_id_of
from jobsvc.web.responses import json_response

STALE: Final = "jobsvc; hit; detail=storage-unavailable"
"""Cache-Status of a response that storage did not confirm (RFC 9211)."""

UNREADABLE: Final = "jobsvc; hit; detail=record-unreadable"
"""Cache-Status of the last good record of a job whose current record cannot be read."""

RETRY_AFTER_S: Final = "2"
"""Seconds until an unfinished job should be requested again."""

_UNFINISHED: Final = (Status.QUEUED, Status.RENDERING)


class JobStatusEndpoint:
    """Handler of `GET /api/jobs/{id}` and its dependencies."""

    def __init__(
        self,
        *,
        freshness: Freshness,
        tails: LogTailCache,
        representations: RepresentationCache,
        waiting: LongPoll,
    ) -> None:
        self._freshness = freshness
        self._tails = tails
        self._waiting = waiting
        self._representations = representations

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD."""
        job_id, force = job_id_of(request), _is_no_cache(request)
        if "?" in request.raw_path:
            await self._waiting.wait_for_change(request, job_id)
        answer = await get_visible_job(self._freshness, request[TOKEN], job_id, force=force)
        logs = None
        if answer.snapshot.job.status is Status.FAILED:
            answer, logs = await self._tails.with_tail(answer, force=force)
        shown = self._representations.get(answer.snapshot, logs)
        shown = shown_to(request[TOKEN], shown, answer.snapshot.job.owner)
        return json_response.answer(request, _body(shown, request, job_id), _fields(answer, shown.etag))

    def try_fast(self, asked: FastRequest, token: Token) -> PreparedResponse | None:
        """Prepare the response to a plain GET if all of it is in memory; return None otherwise."""
        answer = self._freshness.cached(asked.job_id, token)
        if answer is None or hdrs.CACHE_CONTROL in asked.headers:
            return None
        job = answer.snapshot.job
        if not can_see(token, job.owner):
            return None
        logs = None
        if job.status is Status.FAILED:
            if (beside := self._tails.cached(answer)) is None:
                return None
            answer, logs = beside
        shown = self._representations.get(answer.snapshot, logs)
        if is_admin(token):
            shown = shown_to(token, shown, job.owner)
        body = _body(shown, asked, job.id) if shown.reference else shown.body
        return json_response.prepare(asked, body, _fields(answer, shown.etag))


def _body(shown: RenderedJob, request: web.Request | FastRequest, job_id: str) -> bytes:
    if shown.reference and came_by_proxy(request):
        return b"".join(shown.parts_for(job_id, f"{job_id}/"))
    return shown.body


def _is_no_cache(request: web.Request) -> bool:
    """Whether the client asked for a response that is not from a cache (RFC 9111, section 5.2.1.4)."""
    wanted = request.headers.get(hdrs.CACHE_CONTROL)
    return wanted is not None and "no-cache" in wanted.lower()


def _fields(answer: CachedJob, etag: str) -> dict[str, str]:
    fields = {
        "ETag": etag,
        "Content-Type": "application/json",
        "Cache-Control": "private, no-cache",
        "Age": str(int(answer.age)),
        "X-Content-Type-Options": "nosniff",
    }
    if answer.stale:
        fields["Cache-Status"] = STALE
    elif answer.unreadable:
        fields["Cache-Status"] = UNREADABLE
    if answer.snapshot.job.status in _UNFINISHED:
        fields["Retry-After"] = RETRY_AFTER_S
    return fields
