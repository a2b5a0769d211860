"""Open paths that records name: relative to a job directory, or absolute below an output root. Blocking."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from jobsvc.storage.files.safe_open import DIRECTORY_FLAGS, PathNotFound
from jobsvc.storage.layout import OutputRoot, beneath, components

T = TypeVar("T")


class _Root(NamedTuple):
    name: str
    """The normalized path, which paths in records are compared with."""
    path: str
    owner: str | None
    """None: records of all owners may name files below it."""


class OutputRoots:
    """The directories that absolute paths in records may point into."""

    def __init__(self, roots: Sequence[Path | OutputRoot]) -> None:
        # The nearest first: an output root may be a link, and below another root links are not followed.
        self._roots = sorted(map(_normalized, roots), key=_depth, reverse=True)

    @property
    def names(self) -> list[str]:
        """The normalized names of the output roots, the nearest first."""
        return [root.name for root in self._roots]

    def arguments(self) -> list[str]:
        """Return the roots as text; `parse` is the inverse."""
        return [root.path if root.owner is None else f"{root.owner}={root.path}" for root in self._roots]

    @staticmethod
    def parse(argument: str) -> Path | OutputRoot:
        """Return the root in one of `arguments`."""
        owner, equals, path = argument.partition("=/")
        if equals and not owner.startswith("/"):
            return OutputRoot(owner, Path(f"/{path}"))
        return Path(argument)

    def open(self, open_names: Callable[[int, tuple[str, ...]], T], folder: int, owner: str, path: str) -> T:
        """Call `open_names` with the directory that a path starts in, and the names of its components.

        `folder` is the job directory. An absolute path starts in the nearest output root above it, which must
        be open to all owners or to `owner`. Raises PathNotFound if the path cannot lead anywhere, and what
        `open_names` raises; OSError if the output root cannot be opened.
        """
        if not path.startswith("/"):
            names = components(path)
            if names is None:
                raise PathNotFound
            return open_names(folder, names)
        nearest = next((root.name for root in self._roots if beneath(root.name, path)), None)
        for root in self._roots:
            if root.name == nearest and root.owner in {None, owner} and (names := beneath(root.name, path)):
                top = os.open(root.path, DIRECTORY_FLAGS)
                try:
                    return open_names(top, names)
                finally:
                    os.close(top)
        raise PathNotFound

    def is_closed(self, owner: str, path: str) -> bool:
        """Return whether an absolute path is an output root that this owner's records may not name."""
        names = components(path)
        roots = [
            root.owner for root in self._roots if path.startswith("/") and components(root.name) == names
        ]
        return bool(roots) and not {None, owner} & set(roots)


def _normalized(root: Path | OutputRoot) -> _Root:
    if isinstance(root, OutputRoot):
        return _Root(os.path.normpath(root.path), str(root.path), root.owner)
    return _Root(os.path.normpath(root), str(root), None)


def _depth(root: _Root) -> int:
    """Return the number of components of a root; repeated slashes do not count."""
    return len(components(root.name) or ())
