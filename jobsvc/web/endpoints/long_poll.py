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
from jobsvc.web.jobs.representation import PushRenderer
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
        subscriptions: Subscriptions,
        push_renderer: PushRenderer,
        long_lived_requests: LongLivedRequests,
        metrics: Metrics,
    ) -> None:
        self._freshness = freshness
        self._subscriptions = subscriptions
        self._push_renderer = push_renderer
        self._long_lived_requests = long_lived_requests
        self._metrics = metrics

    async def wait_for_change(self, request: web.Request, job_id: str) -> None:
        """Wait for the time given in the request, or until the job has changed.

        Afterwards `request[TOKEN]` is the token as it is now. Raises BadRequest if `wait` is invalid;
        TooManyStreams; JobNotFound, StorageUnavailable; Unauthorized or InsufficientScope if the token has
        changed meanwhile.
        """
        requested = query_params.get_seconds(request.query, "wait", MAX_WAIT_S)
        if not requested:
            return
        seconds = min(requested, WAIT_ENDS_AFTER_S)
        gauge = self._metrics.requests_waiting
        async with self._long_lived_requests.hold(request, gauge) as long_lived:
            timer = asyncio.get_running_loop().call_later(seconds, long_lived.notify)
            try:
                with self._subscriptions.subscribe_job(job_id, long_lived.notify):
                    await self._wait(long_lived, job_id, monotonic() + seconds)
            finally:
                timer.cancel()
            request[TOKEN] = long_lived.permit.current_token()

    async def _wait(self, long_lived: LongLivedRequest, job_id: str, until: float) -> None:
        first: str | None = None
        while long_lived.end_reason is None:
            # Without file system events nothing might report a change: check once per `max_age`.
            long_lived.deadline = monotonic() + self._freshness.max_age
            cached = await get_visible_job(self._freshness, long_lived.token, job_id)
            etag = (await self._push_renderer.render(cached.snapshot, long_lived.token)).etag
            first = first or etag
            if _is_change(long_lived.request, etag, first) or monotonic() >= until:
                return
            await long_lived.wait()


def _is_change(request: web.Request, etag: str, first: str) -> bool:
    """Whether the state is new to the client: judged by its entity tags, or by the state when it asked."""
    if hdrs.IF_NONE_MATCH not in request.headers and hdrs.IF_MATCH not in request.headers:
        return etag != first
    failed = precondition(request.headers, etag, None, time())
    return failed is None or failed.status is not HTTPStatus.NOT_MODIFIED
