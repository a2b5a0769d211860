"""Watches on directories, in the watcher's own process: one RustNotify and a thread that hears it.

A RustNotify can't take on more directories, so new ones get a lookout of their own, and small lookouts are
merged into larger ones, as in a binary counter. Directories are watched one by one and not recursively: what
renders write into their output folders is nobody's concern.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from watchfiles._rust_notify import (
    RustNotify,
)  # the public watch() adds a filter of its own and drops on timeout

from jobsvc.index.watch.root_notify import RootNotify

DEBOUNCE_MS: Final = 50
STEP_MS: Final = 25
"""Milliseconds between two looks at what came, by each lookout, whether or not anything did."""
MAX_GROUP_SIZE: Final = 16_384
"""The most directories of a merged lookout: to set one up holds the interpreter's lock, 12 µs for each."""
_TRIES: Final = 5

RawChanges: TypeAlias = set[tuple[int, str]]
"""What RustNotify tells: 1 added, 2 modified, 3 deleted; and the path."""
Notify: TypeAlias = RustNotify | RootNotify


class LimitReached(Exception):
    """The system allows no more watches, or no more watchers."""


class InotifyGroup:
    """One RustNotify over some directories; begins to hear at once, on a daemon thread."""

    def __init__(
        self,
        folders: Iterable[str],
        marker: str,
        hear: Callable[[InotifyGroup, RawChanges], bool],
        fail: Callable[[InotifyGroup, str], None],
    ) -> None:
        """Watch what of `folders` is there; `hear` returns whether to go on. Raises Refused."""
        kept, self._notify = self._set_up(list(folders), marker)
        self._folders = "\0".join(kept)
        self.size = len(kept)
        self.retire_after: int | None = None
        """The pulse with which it may go, since others have taken over; None while it is needed."""
        self._on_events = hear
        self._fail = fail

    def start(self) -> None:
        """Hear from now on."""
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def folders(self) -> list[str]:
        """The directories that were there when it began."""
        return self._folders.split("\0") if self._folders else []

    def _set_up(self, folders: list[str], marker: str) -> tuple[list[str], Notify]:
        """Watch what of the directories is there; returns those. Raises Refused."""
        for _ in range(_TRIES):
            kept = [folder for folder in folders if _can_be_watched(folder)]
            try:
                return kept, self._notify_of(kept, marker)
            except (FileNotFoundError, PermissionError):
                continue  # one went, or was locked, at this very moment
            except (OSError, RuntimeError) as full:
                raise LimitReached(str(full)) from full
        raise LimitReached("directories come and go faster than they can be watched")

    def _notify_of(self, folders: list[str], marker: str) -> Notify:
        return RustNotify([*folders, marker], False, False, 0, False, False)  # noqa: FBT003 - positional only

    def _run(self) -> None:
        try:
            # No timeout: where it ran out, RustNotify would drop what came at that moment.
            while self._on_events(self, self._notify.watch(DEBOUNCE_MS, STEP_MS, 0, None)):  # type: ignore[arg-type]  # str: only at a timeout or a stop
                pass
        except RuntimeError as failed:
            self._fail(self, str(failed))
        finally:
            self._notify.close()


class RootLookout(InotifyGroup):
    """A lookout over the root, whose names may be anything."""

    def _notify_of(self, folders: list[str], marker: str) -> Notify:
        if not folders:
            raise LimitReached("the root can't be watched")
        return RootNotify(folders[0], marker)


def _can_be_watched(folder: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(folder).st_mode) and os.access(folder, os.R_OK)
    except OSError:
        return False


def should_merge(sizes: list[int], chunk: int = MAX_GROUP_SIZE) -> bool:
    """Whether the last two of these lookouts, by size, should become one."""
    if len(sizes) < 2:  # noqa: PLR2004 - it takes two
        return False
    last, before = sizes[-1], sizes[-2]
    return before <= 2 * last and before + last <= chunk
