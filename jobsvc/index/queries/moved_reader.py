"""Read a change feed for a client that comes from another replica, with a mark of that replica's feed.

The client gets all jobs whose change was found here since the time up to which the other replica had seen
every change (ChangeJournal), then the changes of the feed. It may know states that have not been seen here
yet, or never will be because a later change comes first. Therefore it gets no mark of this feed until
everything has been seen here, too, but one of no feed with the time it came with: wherever it goes on, it
gets all jobs whose change was found since then. At last all jobs that have changed meanwhile are sent again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from jobsvc.domain.job import Status
from jobsvc.index.catalogue import change_journal
from jobsvc.index.queries.change_feed import ChangeFeed, FeedEvent, FeedMark, FeedOverrun, FeedReader

NO_EPOCH: Final = "0" * 12
"""The epoch of a mark that is of no feed."""


class MovedReader(FeedReader):
    """A reader that starts with what its client may lack, and sends some states that the client has."""

    def __init__(self, feed: ChangeFeed, statuses: Collection[Status], mark: FeedMark) -> None:
        """Start after `mark`, of another feed. Raises FeedOverrun if not all changes since then are kept."""
        super().__init__(feed, statuses)
        self._may_know_any = True
        self._came_with = FeedMark(NO_EPOCH, 0, mark.seen_until)
        self._complete_at = feed.journal.wall_time() + change_journal.MARGIN_S
        """Once everything up to this time has been seen, all that the client may know has been."""
        self._repeats_last = False
        self._to_send = self._changed_since(mark.seen_until)

    @property
    def mark(self) -> FeedMark:
        """Where to resume after the events so far."""
        return self._came_with if self._may_know_any else super().mark

    def next(self) -> FeedEvent | None:
        """Return the next event; None if there is none yet. Raises FeedOverrun.

        A job that the client may know, and that is gone or does not match, is returned without a snapshot.
        """
        for job_id in self._to_send:
            return FeedEvent(job_id, self._matching(job_id))
        event = super().next()
        if event is None and self._may_know_any:
            return self._finish()
        return event

    def _finish(self) -> FeedEvent | None:
        """Send the jobs that have changed meanwhile once more, as soon as everything has been seen."""
        if self._repeats_last:
            self._may_know_any = False
        elif self._feed.journal.seen_until >= self._complete_at:
            self._repeats_last = True
            self._to_send = self._changed_since(self._complete_at - change_journal.MARGIN_S)
            return self.next()
        return None

    def _changed_since(self, seen_until: float) -> Iterator[str]:
        job_ids = self._feed.journal.changed_since(seen_until, self._feed.owner)
        if job_ids is None:
            raise FeedOverrun
        return iter(job_ids)
