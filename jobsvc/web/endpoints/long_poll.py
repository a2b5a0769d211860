"""`?wait=SECONDS`: delay the response until the job has changed, or until the time is over.

The response is the usual one; this module only waits.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from time import monotonic, time
from typing import Final

from aiohttp import hdrs, web

from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.queries.subscriptions import Subscriptions
from jobsvc.observe.metrics import Metrics
from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.headers.conditional import precondition
from jobsvc.web.jobs.lookup import get_visible_job
from jobsvc.web.jobs.owner_member import shown_to
from jobsvc.web.jobs.pushed_job import PushRenderer
from jobsvc.web.streaming.long_lived import LongLivedRequest, LongLivedRequests

MAX_WAIT_S: Final = 60
"""Maximum value of `wait`."""
WAIT_ENDS_AFTER_S: Final = 55
"""Longer waits end after this time: nginx, Apache and many load balancers close a connection to a backend
that sends nothing for 60 seconds."""


class LongPoll:
    """Wait until a job differs from the state that the client knows."""

    def __init__(
        self,
        *,
        freshness: Freshness,
        changes: Subscriptions,
        presenting: PushRenderer,
        stays: LongLivedRequests,
        metrics: Metrics,
    ) -> None:
        self._freshness = freshness
        self._changes = changes
        self._presenting = presenting
        self._stays = stays
        self._metrics = metrics

    async def wait_for_change(self, request: web.Request, job_id: str) -> None:
        """Wait for the time given in the request, or until the job has changed.

        Afterwards `request[TOKEN]` is the token as it is now. Raises BadRequest if `wait` is invalid;
        TooManyStreams; JobNotFound, StorageUnavailable; Unauthorized or InsufficientScope if the token has
        changed meanwhile.
        """
        wanted = query_params.seconds(request.query, "wait", MAX_WAIT_S)
        if not wanted:
            return
        seconds = min(wanted, WAIT_ENDS_AFTER_S)
        with (
            self._stays.hold(request, self._metrics.requests_waiting) as stay,
            self._changes.subscribe_job(job_id, stay.notify),
        ):
            alarm = asyncio.get_running_loop().call_later(seconds, stay.notify)
            try:
                await self._rest(stay, job_id, monotonic() + seconds)
            finally:
                alarm.cancel()
            request[TOKEN] = stay.permit.current_token()

    async def _rest(self, stay: LongLivedRequest, job_id: str, until: float) -> None:
        first: str | None = None
        while stay.end_reason is None:
            # Without file system events nothing might report a change: check once per `max_age`.
            stay.deadline = monotonic() + self._freshness.max_age
            answer = await get_visible_job(self._freshness, stay.token, job_id)
            shown = await self._presenting.render(answer.snapshot)
            etag = shown_to(stay.token, shown, answer.snapshot.job.owner).etag
            first = first or etag
            if _is_change(stay.request, etag, first) or monotonic() >= until:
                return
            await stay.wait()


def _is_change(request: web.Request, etag: str, first: str) -> bool:
    """Whether the state is new to the client: judged by its entity tags, or by the state when it asked."""
    if hdrs.IF_NONE_MATCH not in request.headers and hdrs.IF_MATCH not in request.headers:
        return etag != first
    failed = precondition(request.headers, etag, None, time())
    return failed is None or failed.status is not HTTPStatus.NOT_MODIFIED
