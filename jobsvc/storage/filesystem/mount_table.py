"""Report when and where file systems are mounted or unmounted, from /proc/self/mountinfo. Blocking."""

from __future__ import annotations

import os
import select
from pathlib import Path

from jobsvc.storage.filesystem.mounts import MOUNTINFO, mount_point


class MountTable:
    """The kernel's mount table (proc(5)); its descriptor is readable once the table has changed."""

    def __init__(self, path: Path = MOUNTINFO) -> None:
        """Open the table; raises OSError.

        poll(2) reports a change as POLLPRI and POLLERR, which event loops do not wait for. An epoll instance
        that waits for these becomes readable itself.
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
        """Acknowledge a change, so that the descriptor is not readable until the next one."""
        self._epoll.poll(0)

    def changed_points(self) -> set[str]:
        """Return the mount points that changed since the last call; raises OSError."""
        before, self._mounts = self._mounts, self._read()
        return {mount_point(line) for line in before ^ self._mounts} - {""}

    def close(self) -> None:
        """Close the descriptors."""
        self._epoll.close()
        os.close(self._fd)

    def _read(self) -> frozenset[str]:
        return frozenset(self._path.read_text("utf-8", "surrogateescape").splitlines())
