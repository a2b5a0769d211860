"""Refresh jobs in whose directories a file system was mounted or unmounted.

No inotify event and no timestamp shows such a change.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Final

import structlog

from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.index.watch.watch_events import EventKind, WatchEvent
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.filesystem.mount_table import MountTable
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.threads.gil_yield import chunks_yielding_gil

log = structlog.get_logger("jobsvc.index")

GATHER_S: Final = 0.05
"""Seconds to wait after a change of the mount table, because several usually come together."""
JOBS_PER_CHUNK: Final = 10_000
"""Jobs compared between two releases of the GIL."""


class MountWatch:
    """Wait for changes of the mount table and report the affected jobs as events."""

    def __init__(
        self,
        disk: StorageExecutor,
        root: JobsRoot,
        catalogue: Catalogue,
        on_events: Callable[[list[WatchEvent]], None],
    ) -> None:
        self._disk = disk
        self._root = root
        self._catalogue = catalogue
        self._on_events = on_events

    async def run(self) -> None:
        """Watch until cancelled."""
        table = await self._disk.run_metadata("*mounts", _open_table)
        if table is None:
            log.warning("mounts-unwatched", reason="/proc/self/mountinfo cannot be read")
            await asyncio.Event().wait()
            return
        changed = asyncio.Event()

        def on_readable() -> None:
            table.acknowledge()
            changed.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(table.fileno(), on_readable)
        try:
            while True:
                await changed.wait()
                await asyncio.sleep(GATHER_S)
                changed.clear()
                if events := await self._disk.run_metadata("*mounts", partial(self._affected, table)):
                    self._on_events(events)
        finally:
            loop.remove_reader(table.fileno())
            self._disk.close_later(table)

    def _affected(self, table: MountTable) -> list[WatchEvent]:
        mount_points = table.changed_points()
        root = os.path.realpath(self._root.path)
        outputs = [(os.path.realpath(name), name) for name in self._root.output_roots]
        entries = self._catalogue.entries
        events = list(within_jobs(root, mount_points))
        if affected_paths := list(beneath_output_roots(outputs, mount_points)):
            for job_id in chain.from_iterable(chunks_yielding_gil(list(entries), JOBS_PER_CHUNK)):
                entry = entries.get(job_id)
                paths = [] if entry is None else entry.snapshot.job.output_paths
                if any(
                    overlap(os.path.normpath(path), affected)
                    for path in paths
                    if path.startswith("/")
                    for affected in affected_paths
                ):
                    events.append((EventKind.CHANGED, job_id))
        return events


def within_jobs(root: str, mount_points: Iterable[str]) -> Iterator[WatchEvent]:
    """Yield an event for each mount point in a job directory below `root`.

    NEW if it is the job directory itself, else MOVED with the name in the job directory that leads to it, so
    that it is watched again.
    """
    for point in mount_points:
        if point.startswith(f"{root}/"):
            job_id, _, inner = point[len(root) + 1 :].partition("/")
            if inner:
                yield EventKind.MOVED, f"{job_id}/{inner.partition('/')[0]}"
            else:
                yield EventKind.NEW, job_id


def beneath_output_roots(roots: Collection[tuple[str, str]], mount_points: Iterable[str]) -> Iterator[str]:
    """Yield the paths affected by these mount points in the output roots, in the form that records use.

    `roots` are pairs of each root's path without symbolic links and its path as configured.
    """
    for point in mount_points:
        for real, configured in roots:
            if point.startswith(f"{real}/"):
                yield configured + point[len(real) :]
            elif overlap(real, point):
                yield configured


def overlap(path: str, other_path: str) -> bool:
    """Return whether two absolute paths are equal or one is below the other."""
    path, other_path = path.rstrip("/") + "/", other_path.rstrip("/") + "/"
    return path.startswith(other_path) or other_path.startswith(path)


def _open_table() -> MountTable | None:
    try:
        return MountTable()
    except OSError:
        return None
