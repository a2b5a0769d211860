"""`GET /api/events`: stream the states of all jobs that the caller can see, and each change of them.

The stream covers the jobs in the requested states. `job` carries the current state of one, `removed` reports
that a job is no longer among them, and `present` that all existing jobs have been sent. A client that
reconnects gets the changes since its last event if they are still kept, otherwise all jobs again.

A job has the same form as in the list, without its log: the cost of a stream does not depend on logs. Jobs
are read from the index a few at a time, as fast as the client reads them.
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
from jobsvc.web.connection.fair_scheduling import YieldingLock
from jobsvc.web.jobs.list_items import ListItemCache, ListItemCaches
from jobsvc.web.streaming import sse
from jobsvc.web.streaming.event_stream import PIECE_BYTES, EventStream, EventStreams

JOBS_PER_ITERATION: Final = 50
"""Jobs read from the index in one iteration of the event loop."""

_POSITION: Final = re.compile("([0-9a-f]{12})-([0-9]{1,15})", re.ASCII)


class AllEventsEndpoint:
    """Handler of `GET /api/events` and its dependencies."""

    def __init__(
        self,
        *,
        listing: Listing,
        subscriptions: Subscriptions,
        list_items: ListItemCaches,
        work_lock: YieldingLock,
        streams: EventStreams,
        metrics: Metrics,
        ready: asyncio.Event,
    ) -> None:
        """`ready` is set once every job has been read."""
        self._listing = listing
        self._subscriptions = subscriptions
        self._list_items = list_items
        self._work_lock = work_lock
        self._streams = streams
        self._metrics = metrics
        self._ready = ready

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD. Raises BadRequest if a query parameter is invalid."""
        statuses = query_params.get_statuses(request.query)
        with (
            self._streams.hold(request, "jobs") as long_lived,
            self._subscriptions.subscribe_owner(visible_owner(request[TOKEN]), long_lived.notify) as feed,
        ):
            position = parse_position(feed, sse.last_event_id(request))
            send_events = partial(self._send_all, feed, self._list_items.of(request), statuses, position)
            return await self._streams.respond(long_lived, send_events)

    async def _send_all(
        self,
        feed: ChangeFeed,
        list_items: ListItemCache,
        statuses: Collection[Status],
        position: int | None,
        stream: EventStream,
    ) -> None:
        while stream.is_open and not self._ready.is_set():
            await stream.wait(1)  # a job that has not been read yet must not look as if it did not exist
        while stream.is_open:
            reader = FeedReader(feed, statuses, position)
            if position is None:
                await self._send_present(feed, list_items, statuses, reader.position, stream)
            try:
                await self._send_changes(feed, list_items, reader, stream)
            except FeedOverrun:
                position = None

    async def _send_present(
        self,
        feed: ChangeFeed,
        list_items: ListItemCache,
        statuses: Collection[Status],
        position: int,
        stream: EventStream,
    ) -> None:
        """Send the current state of all jobs; changes made meanwhile are sent afterwards."""
        after, sent = None, 0
        while stream.is_open:
            async with self._work_lock:
                page = self._listing.page(
                    feed.owner, statuses=statuses, limit=JOBS_PER_ITERATION, after=after
                )
                page, elements = list_items.fit(page, PIECE_BYTES, with_owner=feed.owner is None)
            events = [part for element in elements for part in sse.parts("job", None, element.json)]
            sent += len(elements)
            if page.after is None:
                present = sse.event("present", b'{"jobs":%d}' % sent, _event_id(feed, position))
                return await stream.send(*events, present)
            if events:
                await stream.send(*events)
            after = page.after
        return None

    async def _send_changes(
        self, feed: ChangeFeed, list_items: ListItemCache, reader: FeedReader, stream: EventStream
    ) -> None:
        """Send changes as they come. Raises FeedOverrun if the reader is behind the changes that are kept."""
        while stream.is_open:
            merged = reader.coalesced
            events = _changed(feed, list_items, reader)
            self._metrics.events_merged.inc(reader.coalesced - merged)
            if events:
                await stream.send(*events)
            else:
                await stream.wait()


def _changed(feed: ChangeFeed, list_items: ListItemCache, reader: FeedReader) -> list[sse.Buffer]:
    """Return the next changes as events, or an empty list if there are none yet.

    Stops once PIECE_BYTES are reached. Raises FeedOverrun if the reader is behind the changes that are kept.
    """
    events: list[sse.Buffer] = []
    size = 0
    while size < PIECE_BYTES and (event := reader.next()) is not None:
        buffers = _format(feed, list_items, event)
        events += buffers
        size += sum(map(len, buffers))
    return events


def _format(feed: ChangeFeed, list_items: ListItemCache, event: FeedEvent) -> Sequence[sse.Buffer]:
    if event.snapshot is None:
        return (sse.removed(event.job_id, _event_id(feed, event.position)),)
    element = list_items.json_of(event.snapshot, with_owner=feed.owner is None)
    return sse.parts("job", _event_id(feed, event.position), element)


def parse_position(feed: ChangeFeed, offered: str | None) -> int | None:
    """Parse the position that a reconnecting client sends as its last event id.

    Returns None if it is invalid, of another feed or process, or if changes since then are no longer kept.
    """
    match = _POSITION.fullmatch(offered or "")
    if match is None or match[1] != feed.epoch or not feed.has_all_from(int(match[2])):
        return None
    return int(match[2])


def _event_id(feed: ChangeFeed, position: int) -> str:
    return f"{feed.epoch}-{position}"
