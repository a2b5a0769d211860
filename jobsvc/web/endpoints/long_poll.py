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
from jobsvc.index.queries.subscriptions import Changes
from jobsvc.observe.metrics import Metrics
from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.headers.conditional import precondition
from jobsvc.web.jobs.lookup import sighted
from jobsvc.web.jobs.owner_member import shown_to
from jobsvc.web.jobs.pushed_job import Presenting
from jobsvc.web.streaming.long_lived import Stay, Stays

MAX_WAIT_S: Final = 60
"""The longest wait that a request may ask for."""
WAIT_ENDS_AFTER_S: Final = 55
"""A longer wait ends here too: nginx, Apache and many load balancers give up on a backend that is silent for
60 seconds."""


class Waiting:
    """Waits for a job to be another than its client knows it."""

    def __init__(
        self,
        *,
        freshness: Freshness,
        changes: Changes,
        presenting: Presenting,
        stays: Stays,
        metrics: Metrics,
    ) -> None:
        self._freshness = freshness
        self._changes = changes
        self._presenting = presenting
        self._stays = stays
        self._metrics = metrics

    async def for_news(self, request: web.Request, job_id: str) -> None:
        """Wait for as long as the request says, or until there is news for it.

        From then on the request has the token as it is now. BadRequest; JobNotFound, StorageUnavailable;
        Unauthorized and InsufficientScope if the token has changed meanwhile.
        """
        wanted = query_params.seconds(request.query, "wait", MAX_WAIT_S)
        if not wanted:
            return
        seconds = min(wanted, WAIT_ENDS_AFTER_S)
        with (
            self._stays.stay(request, self._metrics.requests_waiting) as stay,
            self._changes.of_job(job_id, stay.wake),
        ):
            alarm = asyncio.get_running_loop().call_later(seconds, stay.wake)
            try:
                await self._rest(stay, job_id, monotonic() + seconds)
            finally:
                alarm.cancel()
            request[TOKEN] = stay.permit.current_token()

    async def _rest(self, stay: Stay, job_id: str, until: float) -> None:
        first: str | None = None
        while stay.over is None:
            # Nothing may tell of a change where the storage sends no events: ask as often as an answer ages.
            stay.due = monotonic() + self._freshness.max_age
            answer = await sighted(self._freshness, stay.token, job_id)
            shown = await self._presenting.of(answer.reading)
            etag = shown_to(stay.token, shown, answer.reading.job.owner).etag
            first = first or etag
            if _is_news(stay.request, etag, first) or monotonic() >= until:
                return
            await stay.rest()


def _is_news(request: web.Request, etag: str, first: str) -> bool:
    """Whether the client does not know a state yet: by the tags that it sent, or since it asked."""
    if hdrs.IF_NONE_MATCH not in request.headers and hdrs.IF_MATCH not in request.headers:
        return etag != first
    failed = precondition(request.headers, etag, None, time())
    return failed is None or failed.status is not HTTPStatus.NOT_MODIFIED
