"""Find the names by which one directory is reachable through another; links and bind mounts give it several.

Blocking. A network file system that is mounted twice may count as two: the mount table does not show that
they are the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from jobsvc.storage.filesystem.mounts import contains, read_table, unescaped

_FIELDS: Final = 5
"""Number of mountinfo fields (proc(5)) up to the mount point: id, parent, device, root, mount point."""


class _Place(NamedTuple):
    """A directory, independent of mount points: its file system and its path in that."""

    device: str
    path: str


class _Mount(NamedTuple):
    point: str
    place: _Place


class Mounts:
    """The mounts of this process at one moment."""

    def __init__(self, table: str) -> None:
        """Parse a mountinfo table (proc(5))."""
        self._mounts = [_Mount("/", _Place("", "/"))]
        for line in table.splitlines():
            fields = line.split(" ", _FIELDS)
            if len(fields) > _FIELDS:
                device, root, point = fields[2:_FIELDS]
                self._mounts.append(_Mount(unescaped(point), _Place(device, unescaped(root))))

    @classmethod
    def now(cls) -> Mounts:
        """Read the current table; if that fails, directories are compared by name only."""
        return cls(read_table())

    def names_through(self, outer: Path, inner: Path) -> Iterator[str]:
        """Yield the names of `inner` that start with `outer` and contain no symbolic link after that.

        Raises ValueError, whose message is a predicate, for a loop of symbolic links.
        """
        try:
            top, place = str(outer.resolve()), self._place(str(inner.resolve()))
        except (OSError, RuntimeError) as error:
            raise ValueError(f"cannot be resolved: {error}") from error
        beneath = [mount for mount in self._mounts if contains(top, mount.point) and mount.point != top]
        for point, (device, path) in (_Mount(top, self._place(top)), *beneath):
            if device == place.device and contains(path, place.path):
                name = _join(point, os.path.relpath(place.path, path))
                if self._place(name) == place:  # nothing else is mounted over it
                    yield _join(str(outer), os.path.relpath(name, top))

    def _place(self, path: str) -> _Place:
        """Return the place of an absolute path without symbolic links: on the last of its longest mounts."""
        holding = (mount for mount in reversed(self._mounts) if contains(mount.point, path))
        point, (device, root) = max(holding, key=lambda mount: len(mount.point))
        return _Place(device, _join(root, os.path.relpath(path, point)))


def _join(folder: str, names: str) -> str:
    return os.path.normpath(os.path.join(folder, names))  # noqa: PTH118 - as text
