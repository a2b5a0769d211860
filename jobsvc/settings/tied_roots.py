"""Reject an owner's output root if other owners' records can name its files through another output root.

A record names a file by its path, and the nearest output root of that path decides whether access is allowed.
A directory with a second name, through a symbolic link or a bind mount, can be in another output root by that
name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jobsvc.storage.filesystem.reachable import Mounts
from jobsvc.storage.layout import OutputRoot, components


class _Root(NamedTuple):
    path: Path
    owner: str | None
    name: tuple[str, ...]


def check_tied_roots(tied: OutputRoot, roots: Sequence[Path | OutputRoot]) -> None:
    """Raise ValueError if another of the roots gives other owners access to files of `tied` by another name.

    Sharing is intended if two owners have roots with the same path, or if the path of one root is inside that
    of another.
    """
    mounts, all_roots = Mounts.now(), [_root(each) for each in roots]
    own = _root(tied)
    for other in all_roots:
        if other.owner == own.owner:
            continue
        if other.name == own.name:
            if other.owner is None:
                raise ValueError(f"is also an output root of all owners; remove {str(other.path)!r}")
            continue
        for name in mounts.names_through(other.path, own.path):
            if not _is_decided_by({own.owner}, own, name, all_roots):
                raise ValueError(_reached_as(name, other, "is inside"))
        for name in mounts.names_through(own.path, other.path):
            if not _is_decided_by({other.owner, None}, other, name, all_roots):
                raise ValueError(_reached_as(name, other, "contains"))


def _root(root: Path | OutputRoot) -> _Root:
    owner, path = (root.owner, root.path) if isinstance(root, OutputRoot) else (None, root)
    return _Root(path, owner, _split(str(path)))


def _split(path: str) -> tuple[str, ...]:
    return components(os.path.normpath(path)) or ()


def _is_decided_by(owners: set[str | None], root: _Root, name: str, roots: Sequence[_Root]) -> bool:
    """Return whether the nearest root of a name is `root`, or belongs only to these owners."""
    parts = _split(name)
    holding = [each for each in roots if parts[: len(each.name)] == each.name]
    nearest = max((each.name for each in holding), key=len, default=())
    return nearest == root.name or {each.owner for each in holding if each.name == nearest} <= owners


def _reached_as(name: str, other: _Root, how: str) -> str:
    if _split(name) == other.name:
        how = "is the same directory as"
    of = "all owners" if other.owner is None else f"the owner {other.owner!r}"
    return (
        f"{how} {str(other.path)!r}, an output root of {of}, by another path: {name!r}, so records of other"
        " owners can refer to its files; configure both roots by paths that show this, or separate the"
        " directories"
    )
