"""Pages of jobs, newest first, of one owner or of all: kept in order, and never sorted for a request."""

from __future__ import annotations

from collections.abc import Collection
from heapq import merge
from typing import Final, NamedTuple, TypeAlias

from jobsvc.domain.job import Job, Status
from jobsvc.index.catalogue import Catalogue
from jobsvc.index.ordered import Key, Ordered
from jobsvc.storage.reader import Reading

EXAMINED: Final = 4000
"""Jobs, or pieces of 512 and more, that one page looks at, at most: a page may end before it is full."""

After: TypeAlias = tuple[int, str]
"""Where a page ended: createdAt of its last job in microseconds since the epoch, and its id."""


class Page(NamedTuple):
    """Some of the jobs that were asked for."""

    readings: list[Reading]
    after: After | None
    """Where the next page begins; None where there is nothing more."""


class Listing:
    """The orders of all jobs, one for each owner and status, fed by the catalogue's changes."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._orders: dict[tuple[str | None, Status], Ordered] = {}
        for job_id, entry in catalogue.entries.items():
            self._changed(job_id, None, entry.reading)
        catalogue.subscribe(self._changed)

    def page(
        self,
        owner: str | None,
        *,
        statuses: Collection[Status] = (),
        updated_since: int | None = None,
        limit: int = 50,
        after: After | None = None,
    ) -> Page:
        """Return at most `limit` jobs of an owner (None: of all) that come after `after`.

        No `statuses` means all; `updated_since` is microseconds since the epoch. A page that is not full may
        have more after it: it looks at only so many jobs.
        """
        key: Key | None = None if after is None else (-after[0], after[1])
        orders = [self._orders.get((owner, status)) for status in statuses or Status]
        found: list[Job] = []
        looked_at = merge(*(order.after(key, updated_since) for order in orders if order is not None))
        for examined, (at, job) in enumerate(looked_at):
            if len(found) == limit or examined == EXAMINED:
                return self._page(found, key)
            key = at
            if job is not None:
                found.append(job)
        return self._page(found, None)

    def _page(self, found: list[Job], key: Key | None) -> Page:
        entries = self._catalogue.entries
        return Page([entries[job.id].reading for job in found], None if key is None else (-key[0], key[1]))

    def _changed(self, _job_id: str, before: Reading | None, after: Reading | None) -> None:
        if before is not None:
            self._drop(before.job)
        if after is not None:
            job = after.job
            for owner in (job.owner, None):
                order = self._orders.get((owner, job.status))
                if order is None:
                    order = self._orders[owner, job.status] = Ordered()
                order.add(job)

    def _drop(self, job: Job) -> None:
        for owner in (job.owner, None):
            order = self._orders[owner, job.status]
            order.discard(job)
            if not order:
                del self._orders[owner, job.status]
