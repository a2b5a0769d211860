"""`GET /api/jobs/{id}/events`: one job's state, and each change of it until it is final.

What is sent is always the newest state: a reader who is slow is told less, not later. An event's id is the
state's entity tag, so whoever comes back, to another process too, is told where the job is another by now.
"""

from __future__ import annotations

from functools import partial

from aiohttp import web

from jobsvc.domain.access import Token, sees
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.queries.subscriptions import Changes
from jobsvc.storage.jobs.snapshot import Reading
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.jobs.addresses import came_by_proxy
from jobsvc.web.jobs.lookup import sighted
from jobsvc.web.jobs.owner_member import shown_to
from jobsvc.web.jobs.pushed_job import Presenting
from jobsvc.web.jobs.representation import Shown
from jobsvc.web.paths import job_id_of
from jobsvc.web.streaming import sse
from jobsvc.web.streaming.event_stream import EventStream, Streams


class JobEvents:
    """The route's handler and what it needs."""

    def __init__(
        self,
        *,
        freshness: Freshness,
        catalogue: Catalogue,
        changes: Changes,
        presenting: Presenting,
        streams: Streams,
    ) -> None:
        self._freshness = freshness
        self._catalogue = catalogue
        self._changes = changes
        self._presenting = presenting
        self._streams = streams

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD; JobNotFound, StorageUnavailable."""
        token, job_id = request[TOKEN], job_id_of(request)
        known = sse.offered(request)
        reading = (await sighted(self._freshness, token, job_id)).reading
        if reading.job.status.final and known == await self._place(token, reading):
            return sse.nothing_more()
        with (
            self._streams.stay(request, "job") as stay,
            self._changes.of_job(job_id, stay.wake),
        ):
            base = "" if came_by_proxy(request) else None
            tell = partial(self._tell, token, job_id, known, base)
            return await self._streams.converse(stay, tell)

    async def _place(self, token: Token, reading: Reading) -> str:
        return (await self._shown(token, reading)).etag.strip('"')

    async def _shown(self, token: Token, reading: Reading) -> Shown:
        return shown_to(token, await self._presenting.of(reading), reading.job.owner)

    async def _tell(
        self, token: Token, job_id: str, known: str | None, base: str | None, stream: EventStream
    ) -> None:
        while stream.open:
            entry = self._catalogue.get(job_id)
            if entry is None or not sees(token, entry.reading.job.owner):
                return await stream.send(sse.removed(job_id))
            reading = entry.reading
            shown = await self._shown(token, reading)
            place = shown.etag.strip('"')
            if place != known:
                known = place
                await stream.send(*sse.parts("job", place, *shown.parts_for(job_id, base)))
            if reading.job.status.final:
                return None
            await stream.rest()
        return None
