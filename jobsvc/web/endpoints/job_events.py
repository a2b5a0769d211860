"""`GET /api/jobs/{id}/events`: stream one job's state, and each change of it until it is final.

Each event carries the newest state: a slow reader gets fewer events, not later ones. An event's id is the
entity tag of the state. A client that reconnects, even to another process, gets an event only if the job has
changed.
"""

from __future__ import annotations

from functools import partial

from aiohttp import web

from jobsvc.domain.access import Token, can_see
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.freshness import Freshness
from jobsvc.index.queries.subscriptions import Subscriptions
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.jobs.lookup import get_visible_job
from jobsvc.web.jobs.representation import PushRenderer, RenderedJob
from jobsvc.web.jobs.urls import came_by_proxy
from jobsvc.web.paths import job_id_of
from jobsvc.web.streaming import sse
from jobsvc.web.streaming.event_stream import EventStream, EventStreams


class JobEventsEndpoint:
    """Handler of `GET /api/jobs/{id}/events` and its dependencies."""

    def __init__(
        self,
        *,
        freshness: Freshness,
        catalogue: Catalogue,
        subscriptions: Subscriptions,
        push_renderer: PushRenderer,
        streams: EventStreams,
    ) -> None:
        self._freshness = freshness
        self._catalogue = catalogue
        self._subscriptions = subscriptions
        self._push_renderer = push_renderer
        self._streams = streams

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD. Raises JobNotFound or StorageUnavailable."""
        token, job_id = request[TOKEN], job_id_of(request)
        known = sse.last_event_id(request)
        snapshot = (await get_visible_job(self._freshness, token, job_id)).snapshot
        if snapshot.job.status.final:
            rendered = await self._push_renderer.render(snapshot, token)
            if known == _event_id(rendered):
                return sse.nothing_more()
        async with self._streams.hold(request, "job") as long_lived:
            base = "" if came_by_proxy(request) else None
            send_events = partial(self._send_events, token, job_id, known, base)
            with self._subscriptions.subscribe_job(job_id, long_lived.notify):
                return await self._streams.respond(long_lived, send_events)

    async def _send_events(
        self, token: Token, job_id: str, known: str | None, base: str | None, stream: EventStream
    ) -> None:
        """Send the job's state, then each change, until it is final or the stream ends.

        `known` is the id of the last event that the client has; `base` is for `RenderedJob.parts_for`.
        """
        while stream.is_open:
            entry = self._catalogue.get(job_id)
            if entry is None or not can_see(token, entry.snapshot.job.owner):
                return await stream.send(sse.removed(job_id))
            snapshot = entry.snapshot
            rendered = await self._push_renderer.render(snapshot, token)
            event_id = _event_id(rendered)
            if event_id != known:
                known = event_id
                await stream.send(*sse.parts("job", event_id, *rendered.parts_for(job_id, base)))
            if snapshot.job.status.final:
                return None
            await stream.wait()
        return None


def _event_id(rendered: RenderedJob) -> str:
    return rendered.etag.strip('"')
