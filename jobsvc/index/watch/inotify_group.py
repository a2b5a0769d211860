"""Inotify watches on a group of directories, in the watcher process: one RustNotify and its thread.

RustNotify cannot add paths after construction. Each batch of new directories gets its own group; two groups
of similar size are merged, like digits of a binary counter. Watches are not recursive: files written inside
output folders do not matter.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from watchfiles._rust_notify import (
    RustNotify,
)  # the public watch() adds a filter, and drops events on timeout

from jobsvc.index.watch.root_notify import RootNotify

DEBOUNCE_MS: Final = 50
STEP_MS: Final = 25
"""Milliseconds between two polls of each group's RustNotify, even if there are no events."""
_TRIES: Final = 5

RawChanges: TypeAlias = set[tuple[int, str]]
"""Changes from RustNotify: 1 added, 2 modified, 3 deleted; and the path."""
Notify: TypeAlias = RustNotify | RootNotify


class LimitReached(Exception):
    """The system allows no more inotify watches or instances."""


class InotifyGroup:
    """One RustNotify on some directories, and the daemon thread that reads its events.

    Events are queued from construction on; `start` begins to report them.
    """

    def __init__(
        self,
        folders: Iterable[str],
        heartbeat_file: str,
        on_events: Callable[[InotifyGroup, RawChanges], bool],
        on_failed: Callable[[InotifyGroup, str], None],
    ) -> None:
        """Watch those of `folders` that exist, and `heartbeat_file`.

        `on_events` is called with each batch of changes and returns whether to continue; `on_failed` is
        called with the message if RustNotify fails. Both are called on the group's thread. Raises
        LimitReached.
        """
        existing, self._notify = self._watch_existing(list(folders), heartbeat_file)
        self._folders = "\0".join(existing)
        self.size = len(existing)
        self.retire_after: int | None = None
        """Number of the heartbeat after which a replaced group may end; None while it is needed."""
        self._on_events = on_events
        self._on_failed = on_failed

    def start(self) -> None:
        """Start the thread that reports events."""
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def folders(self) -> list[str]:
        """The watched directories: those that existed at construction."""
        return self._folders.split("\0") if self._folders else []

    def _watch_existing(self, folders: list[str], heartbeat_file: str) -> tuple[list[str], Notify]:
        """Watch the directories that exist; return them and the RustNotify. Raises LimitReached."""
        for _ in range(_TRIES):
            existing = [folder for folder in folders if _can_be_watched(folder)]
            try:
                return existing, self._create_notify(existing, heartbeat_file)
            except (FileNotFoundError, PermissionError):
                continue  # one was removed or made unreadable after the check
            except (OSError, RuntimeError) as exc:
                raise LimitReached(str(exc)) from exc
        raise LimitReached("directories change faster than they can be watched")

    def _create_notify(self, folders: list[str], heartbeat_file: str) -> Notify:
        paths = [*folders, heartbeat_file]
        return RustNotify(paths, False, False, 0, False, False)  # noqa: FBT003 - positional only

    def _run(self) -> None:
        try:
            # No timeout: when it expires, RustNotify drops the events of that moment.
            while self._on_events(self, self._notify.watch(DEBOUNCE_MS, STEP_MS, 0, None)):  # type: ignore[arg-type]  # str: only at a timeout or a stop
                pass
        except RuntimeError as exc:
            self._on_failed(self, str(exc))
        finally:
            self._notify.close()


class RootGroup(InotifyGroup):
    """A group for the root alone, whose names can be any bytes."""

    def _create_notify(self, folders: list[str], heartbeat_file: str) -> Notify:
        if not folders:
            raise LimitReached("the root cannot be watched")
        return RootNotify(folders[0], heartbeat_file)


def _can_be_watched(folder: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(folder).st_mode) and os.access(folder, os.R_OK)
    except OSError:
        return False


def should_merge(sizes: list[int], max_size: int) -> bool:
    """Return whether the last two groups should be merged, given the sizes of all groups.

    They are if the older one is at most twice as large, and both together have at most `max_size`
    directories.
    """
    if len(sizes) < 2:  # noqa: PLR2004 - a merge needs two groups
        return False
    last, previous = sizes[-1], sizes[-2]
    return previous <= 2 * last and previous + last <= max_size
