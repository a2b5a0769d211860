"""`GET /api/events`: the states of all jobs that the caller sees, and each change of them.

A view of those jobs that are in the states that were asked for: `job` says how one is now, `removed` that one
is not among them any more, `present` that all which are there have been told. Whoever comes back is told what
came since, as far as that is remembered, and else everything anew.

A job is shown as the list shows it, without its log: what a stream costs does not depend on logs. Its jobs
are read from the index a few at a time, as its client takes them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

from aiohttp import web

from jobsvc.domain.access import visible_owner
from jobsvc.domain.job import Status
from jobsvc.index.queries.change_feed import ChangeFeed, FeedEvent, FeedOverrun, FeedReader
from jobsvc.index.queries.listing import Listing
from jobsvc.index.queries.subscriptions import Subscriptions
from jobsvc.observe.metrics import Metrics
from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.connection.turns import HeavyWorkTurns
from jobsvc.web.jobs.list_items import ListItemCache, ListItemCaches
from jobsvc.web.streaming import sse
from jobsvc.web.streaming.event_stream import PIECE_BYTES, EventStream, EventStreams

JOBS_PER_ITERATION: Final = 50
"""Jobs that are looked up in one turn of the loop."""

_POSITION: Final = re.compile("([0-9a-f]{12})-([0-9]{1,15})", re.ASCII)


class AllEventsEndpoint:
    """The route's handler and what it needs."""

    def __init__(
        self,
        *,
        listing: Listing,
        changes: Subscriptions,
        listed: ListItemCaches,
        turns: HeavyWorkTurns,
        streams: EventStreams,
        metrics: Metrics,
        ready: asyncio.Event,
    ) -> None:
        """`ready` is set once every job has been looked at."""
        self._listing = listing
        self._changes = changes
        self._listed = listed
        self._turns = turns
        self._streams = streams
        self._metrics = metrics
        self._ready = ready

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer GET and HEAD; BadRequest."""
        statuses = query_params.statuses(request.query)
        with (
            self._streams.hold(request, "jobs") as stay,
            self._changes.subscribe_owner(visible_owner(request[TOKEN]), stay.notify) as feed,
        ):
            place = parse_position(feed, sse.offered(request))
            tell = partial(self._send_all, feed, self._listed.of(request), statuses, place)
            return await self._streams.respond(stay, tell)

    async def _send_all(
        self,
        feed: ChangeFeed,
        listed: ListItemCache,
        statuses: Collection[Status],
        place: int | None,
        stream: EventStream,
    ) -> None:
        while stream.open and not self._ready.is_set():
            await stream.wait(1)  # of what is not known yet nobody should think that it is not there
        while stream.open:
            view = FeedReader(feed, statuses, place)
            if place is None:
                await self._send_present(feed, listed, statuses, view.position, stream)
            try:
                await self._send_changes(feed, listed, view, stream)
            except FeedOverrun:
                place = None

    async def _send_present(
        self,
        feed: ChangeFeed,
        listed: ListItemCache,
        statuses: Collection[Status],
        place: int,
        stream: EventStream,
    ) -> None:
        """Tell how all are now; what changes meanwhile is told of afterwards."""
        after, told = None, 0
        while stream.open:
            async with self._turns.take():
                page = self._listing.page(
                    feed.owner, statuses=statuses, limit=JOBS_PER_ITERATION, after=after
                )
                page, elements = listed.fit(page, PIECE_BYTES, with_owner=feed.owner is None)
            events = [part for element in elements for part in sse.parts("job", None, element.json)]
            told += len(elements)
            if page.after is None:
                present = sse.event("present", b'{"jobs":%d}' % told, _named(feed, place))
                return await stream.send(*events, present)
            if events:
                await stream.send(*events)
            after = page.after
        return None

    async def _send_changes(
        self, feed: ChangeFeed, listed: ListItemCache, view: FeedReader, stream: EventStream
    ) -> None:
        """Tell what comes; Missed."""
        while stream.open:
            merged = view.coalesced
            events = _changed(feed, listed, view)
            self._metrics.events_merged.inc(view.coalesced - merged)
            if events:
                await stream.send(*events)
            else:
                await stream.wait()


def _changed(feed: ChangeFeed, listed: ListItemCache, view: FeedReader) -> list[sse.Buffer]:
    """Write the next changes, of a bounded size together; none where there are none yet. Missed."""
    events: list[sse.Buffer] = []
    size = 0
    while size < PIECE_BYTES and (step := view.next()) is not None:
        told = _told(feed, listed, step)
        events += told
        size += sum(map(len, told))
    return events


def _told(feed: ChangeFeed, listed: ListItemCache, step: FeedEvent) -> Sequence[sse.Buffer]:
    if step.snapshot is None:
        return (sse.removed(step.job_id, _named(feed, step.position)),)
    element = listed.json_of(step.snapshot, with_owner=feed.owner is None)
    return sse.parts("job", _named(feed, step.position), element)


def parse_position(feed: ChangeFeed, offered: str | None) -> int | None:
    """Find the place that a client names who comes back; None where what came since is not known any more."""
    match = _POSITION.fullmatch(offered or "")
    if match is None or match[1] != feed.epoch or not feed.holds(int(match[2])):
        return None
    return int(match[2])


def _named(feed: ChangeFeed, place: int) -> str:
    return f"{feed.epoch}-{place}"
