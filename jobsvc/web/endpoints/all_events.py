"""`GET /api/events`: stream the states of all jobs that the caller can see, and each change of them.

The stream covers the jobs in the requested states. `job` carries the current state of one, `removed` reports
that a job is no longer among them, and `present` that all existing jobs have been sent. A client that
reconnects gets the changes since its last event if they are still kept, also from another replica; otherwise
all jobs again.

A job has the same form as in the list, without its log: the cost of a stream does not depend on logs. Jobs
are read from the index a few at a time, as fast as the client reads them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

from aiohttp import web

from jobsvc.domain.access import visible_owner
from jobsvc.domain.job import Status
from jobsvc.index.queries.change_feed import ChangeFeed, FeedEvent, FeedMark, FeedOverrun, FeedReader
from jobsvc.index.queries.listing import Listing
from jobsvc.index.queries.moved_reader import MovedReader
from jobsvc.index.queries.subscriptions import Subscriptions
from jobsvc.observe.metrics import Metrics
from jobsvc.web import query_params
from jobsvc.web.auth.bearer import TOKEN
from jobsvc.web.connection.fair_scheduling import YieldingLock
from jobsvc.web.jobs.list_items import ListItemCache, ListItemCaches
from jobsvc.web.streaming import sse
from jobsvc.web.streaming.event_stream import PIECE_BYTES, EventStream, EventStreams
from jobsvc.web.streaming.feed_marks import format_mark, parse_mark

JOBS_PER_ITERATION: Final = 50
"""Jobs read from the index in one iteration of the event loop."""


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
        owner = visible_owner(request[TOKEN])
        async with self._streams.hold(request, "jobs") as long_lived:
            with self._subscriptions.subscribe_owner(owner, long_lived.notify) as feed:
                last_event_id = sse.last_event_id(request)
                list_items = self._list_items.of(request)
                send_events = partial(self._send_all, feed, list_items, statuses, last_event_id)
                return await self._streams.respond(long_lived, send_events)

    async def _send_all(
        self,
        feed: ChangeFeed,
        list_items: ListItemCache,
        statuses: Collection[Status],
        last_event_id: str | None,
        stream: EventStream,
    ) -> None:
        while stream.is_open and not self._ready.is_set():
            await stream.wait(1)  # a job that has not been read yet must not look as if it did not exist
        reader = self._resume(feed, statuses, last_event_id)
        while stream.is_open:
            if reader is None:
                reader = FeedReader(feed, statuses)
                await self._send_present(feed, list_items, statuses, reader, stream)
            try:
                await self._send_changes(feed, list_items, reader, stream)
            except FeedOverrun:
                reader = None

    def _resume(
        self, feed: ChangeFeed, statuses: Collection[Status], last_event_id: str | None
    ) -> FeedReader | None:
        """Return a reader that continues after the client's last event; None if all jobs have to be sent."""
        if last_event_id is None:
            return None
        reader = _reader_after(feed, statuses, parse_mark(last_event_id))
        kept = "nothing" if reader is None else "jobs" if isinstance(reader, MovedReader) else "changes"
        self._metrics.streams_resumed.labels(kept).inc()
        return reader

    async def _send_present(
        self,
        feed: ChangeFeed,
        list_items: ListItemCache,
        statuses: Collection[Status],
        reader: FeedReader,
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
                present = sse.event("present", b'{"jobs":%d}' % sent, format_mark(reader.mark))
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
                stream.heartbeat = sse.position(format_mark(reader.mark))
                await stream.wait()


def _changed(feed: ChangeFeed, list_items: ListItemCache, reader: FeedReader) -> list[sse.Buffer]:
    """Return the next changes as events, or an empty list if there are none yet.

    Stops once PIECE_BYTES are reached. Raises FeedOverrun if the reader is behind the changes that are kept.
    """
    events: list[sse.Buffer] = []
    size = 0
    while size < PIECE_BYTES and (event := reader.next()) is not None:
        buffers = _format(event, format_mark(reader.mark), list_items, with_owner=feed.owner is None)
        events += buffers
        size += sum(map(len, buffers))
    return events


def _format(
    event: FeedEvent, event_id: str, list_items: ListItemCache, *, with_owner: bool
) -> Sequence[sse.Buffer]:
    if event.snapshot is None:
        return (sse.removed(event.job_id, event_id),)
    return sse.parts("job", event_id, list_items.json_of(event.snapshot, with_owner=with_owner))


def _reader_after(feed: ChangeFeed, statuses: Collection[Status], mark: FeedMark | None) -> FeedReader | None:
    """Return a reader that starts at a mark of this or another feed; None if that is not possible."""
    if mark is None:
        return None
    if mark.epoch == feed.epoch and feed.has_all_from(mark.position):
        return FeedReader(feed, statuses, mark.position)
    try:
        return MovedReader(feed, statuses, mark)
    except FeedOverrun:
        return None
