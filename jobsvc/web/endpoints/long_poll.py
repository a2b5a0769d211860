"""`?wait=SECONDS`: an answer that comes when there is something new to say, or when the time is up.

What it then says is the ordinary answer: this only waits for it.
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
"""The longest wait that a request may ask for."""
WAIT_ENDS_AFTER_S: Final = 55
"""A longer wait ends here too: nginx, Apache and many load balancers give up on a backend that is silent for
60 seconds."""


class LongPoll:
    """Waits for a job to be another than its client knows it."""

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
        """Wait for as long as the request says, or until there is news for it.

        From then on the request has the token as it is now. BadRequest; JobNotFound, StorageUnavailable;
        Unauthorized and InsufficientScope if the token has changed meanwhile.
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
            # Nothing may tell of a change where the storage sends no events: ask as often as an answer ages.
            stay.deadline = monotonic() + self._freshness.max_age
            answer = await get_visible_job(self._freshness, stay.token, job_id)
            shown = await self._presenting.render(answer.snapshot)
            etag = shown_to(stay.token, shown, answer.snapshot.job.owner).etag
            first = first or etag
            if _is_change(stay.request, etag, first) or monotonic() >= until:
                return
            await stay.wait()


def _is_change(request: web.Request, etag: str, first: str) -> bool:
    """Whether the client does not know a state yet: by the tags that it sent, or since it asked."""
    if hdrs.IF_NONE_MATCH not in request.headers and hdrs.IF_MATCH not in request.headers:
        return etag != first
    failed = precondition(request.headers, etag, None, time())
    return failed is None or failed.status is not HTTPStatus.NOT_MODIFIED
