"""Find added, removed and replaced jobs by listing the root, where no watcher reports them.

The root's timestamps show whether a listing is needed. If they might be too coarse, or on network storage,
which can cache them, unchanged timestamps prove nothing: the root is listed anyway, at most 5 % of the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic, thread_time
from typing import Final, NamedTuple

from jobsvc.index.catalogue.catalogue_updater import CatalogueUpdater
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.catalogue.index_stats import IndexStats
from jobsvc.index.scan.listing_comparison import NameChanges, compare_names
from jobsvc.index.scan.refresher import Refresher
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.files.safe_open import PathNotFound
from jobsvc.storage.filesystem.mounts import keeps_inode_numbers, lists_from_server
from jobsvc.storage.jobs.batch_read import ReadResult
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import (
    RootListing,
    RootStat,
    RootVersion,
    list_root,
    root_version,
    stat_root,
)
from jobsvc.storage.jobs.snapshot import JobSnapshot

LISTING_TIMEOUT_S: Final = 60.0
"""Seconds after which a listing fails; a million names take some, and more over a network."""
CPU_SHARE: Final = 0.02
"""Maximum share of one CPU for listings."""
CHANGED_TIME_SHARE: Final = 0.5
"""Maximum share of time for listings while the root changes."""
UNCHANGED_TIME_SHARE: Final = 0.05
"""Maximum share of time for listings while the root's timestamps are unchanged."""
POLLED_FOR_S: Final = 600.0
"""Seconds for which a directory without a job is polled: its record is often written later."""
MAX_POLLED: Final = 1000
"""Maximum directories without a job that are polled; a reconcile finds jobs in the others."""
UNLISTED_FOR_S: Final = 600.0
"""Seconds for which a name that still resolves to a job is ignored after the root no longer lists it."""
MIN_RENUMBERED: Final = 100
"""If more jobs than this, and more than half of all, seem replaced, the inode numbers are not stable."""


class ListingSchedule:
    """Decide when the root has to be listed again. No I/O; times are monotonic seconds."""

    def __init__(self) -> None:
        self._version: RootVersion | None = None
        self._is_stable = False
        self._is_requested = True
        self._started_at = 0.0
        self._seconds = 0.0
        self._cpu_seconds = 0.0

    def is_due(self, version: RootVersion, now: float, *, trusted: bool) -> bool:
        """Return whether to list a root of this version at `now`.

        `trusted`: its timestamps show every change. Even then, the timestamps of the last listing might have
        been too recent to distinguish two versions; then the root is listed again.
        """
        changed = self._is_requested or version != self._version
        if not changed and trusted and self._is_stable:
            return False
        share = CHANGED_TIME_SHARE if changed else UNCHANGED_TIME_SHARE
        return now - self._started_at >= max(self._seconds / share, self._cpu_seconds / CPU_SHARE)

    def listed(self, listing: RootListing, started_at: float, seconds: float, cpu_seconds: float) -> None:
        """Record a listing and its duration and CPU time, in seconds."""
        self._version, self._is_stable = listing.version, listing.is_stable
        self._started_at, self._seconds, self._cpu_seconds = started_at, seconds, cpu_seconds

    def start(self) -> None:
        """Record the start of a listing, which serves all earlier requests."""
        self._is_requested = False

    def request(self) -> None:
        """List the root again even if its version is unchanged."""
        self._is_requested = True


class _Comparison(NamedTuple):
    listing: RootListing
    changes: NameChanges
    cpu_seconds: float


class RootNames:
    """List the root when due, and read the jobs that differ from the catalogue. Event loop only."""

    def __init__(  # noqa: PLR0913 - keyword arguments, constructed in one place
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        catalogue: Catalogue,
        *,
        updater: CatalogueUpdater,
        refresher: Refresher,
        stats: IndexStats,
        poll_interval: float,
        is_local: Callable[[], bool],
        is_needed: Callable[[], bool],
    ) -> None:
        """`is_needed` returns whether new jobs are found only by listing; `poll_interval` is in seconds.

        `is_local` returns whether the file system is local, so that the root's timestamps show every change.
        """
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._updater = updater
        self._refresher = refresher
        self._stats = stats
        self._is_local = is_local
        self._poll_interval = poll_interval
        self._is_needed = is_needed
        self._schedule = ListingSchedule()
        self._without_job: dict[str, int] = {}
        """Listed names for which no job was found, with their inode numbers."""
        self._polled_until: dict[str, float] = {}
        """The names in `_without_job` that are polled, and until when (monotonic seconds)."""
        self._found_unlisted: set[str] = set()
        """Jobs that were not in the last listing but were still found by name."""
        catalogue.subscribe(self._on_change)

    def to_poll(self) -> list[str]:
        """Return the names of directories without a job whose record may be written soon."""
        now = monotonic()
        for job_id in [job_id for job_id, until in self._polled_until.items() if until < now]:
            del self._polled_until[job_id]
        return list(self._polled_until)

    async def check(self) -> None:
        """Wait for the poll interval, then list the root if it is due."""
        await asyncio.sleep(self._poll_interval)
        if not self._is_needed():
            return
        version = await self._disk.run_metadata("*root", partial(root_version, self._root.path))
        if self._schedule.is_due(version, monotonic(), trusted=self._is_local()):
            await self._list()

    async def _list(self) -> None:
        started_at = monotonic()
        self._schedule.start()
        try:
            listing, changes, cpu = await self._disk.run_metadata("*names", self._compare, LISTING_TIMEOUT_S)
            self._schedule.listed(listing, started_at, monotonic() - started_at, cpu)
            self._stats.ignored_names = listing.ignored
            self._catalogue.prune_unreadable(listing.inodes.keys())
            self._forget_unlisted(listing)
            known = [*changes.missing, *changes.replaced]
            await self._refresher.refresh_all("*names", known, changes.new, listed=listing.inodes)
        except BaseException:
            self._schedule.request()
            raise
        self._record_reads(listing, changes, started_at)
        await self._drop_unlisted(changes.missing)

    def _compare(self) -> _Comparison:
        before = thread_time()
        listing = list_root(self._root.path)
        entries = self._catalogue.entries
        changes = compare_names(listing.inodes, entries, self._without_job)
        if len(changes.replaced) > max(MIN_RENUMBERED, len(entries) // 2):
            # The file system assigns new inode numbers each time, so they do not show replaced jobs.
            for job_id in changes.replaced:
                if (entry := entries.get(job_id)) is not None:
                    entry.inode = None
            changes = changes._replace(replaced=[])
        return _Comparison(listing, changes, thread_time() - before)

    def _record_reads(self, listing: RootListing, changes: NameChanges, started_at: float) -> None:
        """Record inode numbers and names without a job after the jobs of a listing were read.

        Requests another listing if storage did not respond for one of them, or if a missing name resolves.
        """
        entries, inodes = self._catalogue.entries, listing.inodes
        is_complete = True
        for job_id in (*changes.new, *changes.replaced):
            if (entry := entries.get(job_id)) is not None:
                if entry.verified_at >= started_at:
                    entry.inode = inodes[job_id]
                else:  # its storage did not respond
                    is_complete = False
        now = monotonic()
        without_job = {job_id: inodes[job_id] for job_id in changes.new if job_id not in entries}
        self._without_job = {
            job_id: inode
            for job_id, inode in self._without_job.items()
            if job_id not in entries and inodes.get(job_id) == inode
        } | without_job
        polled = {
            job_id: until for job_id, until in self._polled_until.items() if job_id in self._without_job
        } | dict.fromkeys(without_job, now + POLLED_FOR_S)
        self._polled_until = dict(islice(polled.items(), max(len(polled) - MAX_POLLED, 0), None))
        # A cached name can still resolve to a directory that was removed.
        if not is_complete or any(job_id in entries for job_id in changes.missing):
            self._schedule.request()

    async def _drop_unlisted(self, missing: list[str]) -> None:
        """Remove jobs missing from two listings in a row although their names still resolve to directories.

        GlusterFS's client (md-cache) resolves the old name of a renamed directory for as long as it is looked
        up. On other file systems the listing might be cached instead; there a job is removed only if its name
        resolves to the directory (same inode number) that was listed under it before.
        """
        entries, unlisted = self._catalogue.entries, self._catalogue.unlisted
        unlisted_now = {job_id for job_id in missing if job_id in entries}
        twice, self._found_unlisted = sorted(unlisted_now & self._found_unlisted), unlisted_now
        if not twice or self._is_local():
            return
        directories = await self._disk.run_metadata("*names", partial(_directories, self._root.path, twice))
        now = monotonic()
        for job_id in twice:
            inode = directories.inodes.get(job_id)
            if (entry := entries.get(job_id)) is None or inode is None:
                continue
            if directories.is_listing_fresh or inode == entry.inode:
                unlisted[job_id] = now + UNLISTED_FOR_S
                self._updater.apply(ReadResult(job_id, now, PathNotFound()), directories.root_stat)

    def _forget_unlisted(self, listing: RootListing) -> None:
        """Stop ignoring names that are listed again, or whose UNLISTED_FOR_S are over."""
        unlisted, now = self._catalogue.unlisted, monotonic()
        for job_id in [name for name, until in unlisted.items() if name in listing.inodes or until < now]:
            del unlisted[job_id]

    def _on_change(self, job_id: str, _before: JobSnapshot | None, after: JobSnapshot | None) -> None:
        """Request a listing after a job was removed, since its directory might still exist."""
        if after is None:
            self._schedule.request()
        elif job_id in self._without_job:
            del self._without_job[job_id]
            self._polled_until.pop(job_id, None)


class _Directories(NamedTuple):
    root_stat: RootStat
    """The root at the time of the check."""
    is_listing_fresh: bool
    """Whether the file system never caches listings."""
    inodes: dict[str, int]
    """Inode numbers by job id; empty if the file system does not keep them."""


def _directories(root: Path, job_ids: Sequence[str]) -> _Directories:
    root_stat = stat_root(root)
    inodes: dict[str, int] = {}
    if keeps_inode_numbers(root_stat.device):
        for job_id in job_ids:
            with suppress(FileNotFoundError):
                inodes[job_id] = (root / job_id).lstat().st_ino
    return _Directories(root_stat, lists_from_server(root_stat.device), inodes)
