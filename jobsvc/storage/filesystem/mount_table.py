"""Tells when and where file systems are mounted or unmounted, by /proc/self/mountinfo (proc(5)). Blocking."""

from __future__ import annotations

import os
import select
from pathlib import Path

from jobsvc.storage.filesystem.mounts import MOUNTINFO, mount_point


class MountTable:
    """The kernel's table of mounts; its descriptor is readable once the table has changed."""

    def __init__(self, path: Path = MOUNTINFO) -> None:
        """Open it; OSError.

        poll(2) reports a change as POLLPRI and POLLERR, which no event loop waits for. An epoll instance that
        waits for them is itself readable then.
        """
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._fd, select.EPOLLPRI | select.EPOLLERR)
        self._mounts = self._read()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._epoll.fileno()

    def acknowledge(self) -> None:
        """Take in that the table has changed, so that the descriptor is readable at the next change only."""
        self._epoll.poll(0)

    def changed_points(self) -> set[str]:
        """Return where something was mounted or unmounted since this was called last; OSError."""
        before, self._mounts = self._mounts, self._read()
        return {mount_point(line) for line in before ^ self._mounts} - {""}

    def close(self) -> None:
        """Close the descriptors."""
        self._epoll.close()
        os.close(self._fd)

    def _read(self) -> frozenset[str]:
        return frozenset(self._path.read_text("utf-8", "surrogateescape").splitlines())
