"""By which names a folder is reached through another one; symbolic links and bind mounts give it several.

Blocking. A file system that is mounted twice from a server may count as two: nothing tells that they are one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from jobsvc.storage.filesystem.mounts import MOUNTINFO, holds, unescaped

_FIELDS: Final = 5
"""Fields of a line of mountinfo (proc(5)) up to the mount point: the third is the device, then the root."""


class _Place(NamedTuple):
    """A folder, whatever it is mounted as: the file system, and the path on that."""

    device: str
    path: str


class _Mount(NamedTuple):
    point: str
    place: _Place


class Mounts:
    """The mounts of this process at one moment."""

    def __init__(self, table: str) -> None:
        """Take a mountinfo table (proc(5))."""
        self._mounts = [_Mount("/", _Place("", "/"))]
        for line in table.splitlines():
            fields = line.split(" ", _FIELDS)
            if len(fields) > _FIELDS:
                device, root, point = fields[2:_FIELDS]
                self._mounts.append(_Mount(unescaped(point), _Place(device, unescaped(root))))

    @classmethod
    def now(cls) -> Mounts:
        """Read the table; where there is none, folders are compared by their names."""
        try:
            return cls(MOUNTINFO.read_text("utf-8", "surrogateescape"))
        except OSError:
            return cls("")

    def names_through(self, outer: Path, inner: Path) -> Iterator[str]:
        """Give the names of `inner` that begin with that of `outer`, and lead on through no symbolic link.

        OSError, or RuntimeError, where a symbolic link leads round in a circle.
        """
        top, place = str(outer.resolve()), self._place(str(inner.resolve()))
        beneath = [mount for mount in self._mounts if holds(top, mount.point) and mount.point != top]
        for point, (device, path) in (_Mount(top, self._place(top)), *beneath):
            if device == place.device and holds(path, place.path):
                name = _join(point, os.path.relpath(place.path, path))
                if self._place(name) == place:  # and nothing else is mounted over it
                    yield _join(str(outer), os.path.relpath(name, top))

    def _place(self, path: str) -> _Place:
        """Find where an absolute path without symbolic links lies: on the last of the longest mounts."""
        holding = (mount for mount in reversed(self._mounts) if holds(mount.point, path))
        point, (device, root) = max(holding, key=lambda mount: len(mount.point))
        return _Place(device, _join(root, os.path.relpath(path, point)))


def _join(folder: str, names: str) -> str:
    return os.path.normpath(os.path.join(folder, names))  # noqa: PTH118 - as text
