"""`GET /api/jobs/{id}`: return a job's progress, why it failed, and the URL of its output."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from jobsvc.domain.access import Token, can_see
from jobsvc.domain.job import Status
from jobsvc.index.catalogue.freshness import CachedJob, Freshness
from jobsvc.index.queries.log_tail_cache import LogTailCache
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.connection.fast_request import FastRequest, PreparedResponse
from jobsvc.web.endpoints.long_poll import LongPoll
from jobsvc.web.jobs.lookup import get_visible_job
from jobsvc.web.jobs.representation import RenderedJob, RepresentationCache
from jobsvc.web.jobs.urls import came_by_proxy
from jobsvc.web.paths import job_id_of
from jobsvc.web.responses import json_response

UNFINISHED_RETRY_S: Final = "2"
"""Retry-After of an unfinished job: when it should be requested again."""

_UNFINISHED: Final = (Status.QUEUED, Status.RENDERING)


class JobStatusEndpoint:
    """Handler of `GET /api/jobs/{id}` and its dependencies."""

    def __init__(
        self,
        *,
        freshness: Freshness,
        log_tails: LogTailCache,
        representations: RepresentationCache,
        long_poll: LongPoll,
    ) -> None:
        self._freshness = freshness
        self._log_tails = log_tails
        self._long_poll = long_poll
        self._representations = representations

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD."""
        job_id, force = job_id_of(request), _is_no_cache(request)
        if "?" in request.raw_path:
            await self._long_poll.wait_for_change(request, job_id)
        cached = await get_visible_job(self._freshness, request[TOKEN], job_id, force=force)
        logs = None
        if cached.snapshot.job.status is Status.FAILED:
            cached, logs = await self._log_tails.with_tail(cached, force=force)
        rendered = self._representations.get(cached.snapshot, logs)
        rendered = rendered.for_token(request[TOKEN], cached.snapshot.job.owner)
        return json_response.respond(
            request, _body(rendered, request, job_id), _fields(cached, rendered.etag)
        )

    def prepare_fast(self, request: FastRequest, token: Token) -> PreparedResponse | None:
        """Prepare the response to a plain GET if all of it is in memory; return None otherwise."""
        cached = self._freshness.cached(request.job_id, token)
        if cached is None or hdrs.CACHE_CONTROL in request.headers:
            return None
        job = cached.snapshot.job
        if not can_see(token, job.owner):
            return None
        logs = None
        if job.status is Status.FAILED:
            if (with_tail := self._log_tails.cached(cached)) is None:
                return None
            cached, logs = with_tail
        rendered = self._representations.get(cached.snapshot, logs).for_token(token, job.owner)
        body = _body(rendered, request, job.id) if rendered.references else rendered.body
        return json_response.prepare(request, body, _fields(cached, rendered.etag))


def _body(rendered: RenderedJob, request: web.Request | FastRequest, job_id: str) -> bytes:
    if rendered.references and came_by_proxy(request):
        return b"".join(rendered.parts_for(job_id, f"{job_id}/"))
    return rendered.body


def _is_no_cache(request: web.Request) -> bool:
    """Whether the client asked for a response that is not from a cache (RFC 9111, section 5.2.1.4)."""
    field = request.headers.get(hdrs.CACHE_CONTROL)
    return field is not None and "no-cache" in field.lower()


def _fields(cached: CachedJob, etag: str) -> dict[str, str]:
    fields = json_response.index_fields(etag, cached.age, stale=cached.stale, unreadable=cached.unreadable)
    if cached.snapshot.job.status in _UNFINISHED:
        fields["Retry-After"] = UNFINISHED_RETRY_S
    return fields
