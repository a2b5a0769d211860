"""Replaces directories and files by symbolic links and back, over and over, while requests are answered."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from hypothesis import strategies as st

from tests.exchange import exchange
from tests.web.outputs.path_safety.random_trees import OTHER_OWNER, PLACES, Tree

_MAX_PAUSE_S: Final = 0.001


_SWAPPED: Final = ("", "a", "a/b", "a/x", "f.0001.exr")
some_swaps = st.lists(
    st.tuples(
        st.sampled_from(("job", "job", "shared", "linked")),
        st.sampled_from(_SWAPPED),
        st.sampled_from(("link", "job", "fifo")),
    ),
    max_size=3,
)
"""Place and path of what is swapped, and for what."""


class Swap(NamedTuple):
    """Two paths whose entries are exchanged; the second one is not reachable for any client."""

    path: Path
    decoy: Path


def make_decoy(tree: Tree, path: Path, number: int, *, kind: str) -> Swap | None:
    """Make what takes the place of `path`: secrets of the same names, or a link to them.

    `kind`: `link` to a copy; `job` of another owner, if `path` is the job directory; `fifo`.
    Returns None if there is nothing at the path.
    """
    if not os.path.lexists(path):
        return None
    hidden = tree.roots.scratch / "hidden" / f"{tree.number}-{number}"
    secret = hidden / "secret"
    hidden.mkdir(parents=True)
    _copy_names(tree, path, secret)
    if path == tree.place("job"):
        tree.write_record(secret, OTHER_OWNER)
        if kind == "job":
            return Swap(path, secret)
    decoy = hidden / "decoy"
    if kind == "fifo":
        os.mkfifo(decoy)
    else:
        decoy.symlink_to(secret)
    return Swap(path, decoy)


def _copy_names(tree: Tree, path: Path, secret: Path) -> None:
    """Make a file with a content of its own for each file at or below a path."""
    for file in list(tree.contents):
        if file.is_relative_to(path):
            tree.add_file(secret / file.relative_to(path))


@contextmanager
def swapping(swaps: Sequence[Swap], seed: int) -> Iterator[None]:
    """Exchange the paths at random during the block; afterwards everything is as before."""
    stop = threading.Event()

    def work() -> None:
        draw = random.Random(seed)  # noqa: S311 - no secret
        while not stop.is_set():
            swap = draw.choice(swaps)
            exchange(*swap)
            time.sleep(draw.random() * _MAX_PAUSE_S)
            exchange(*swap)
            time.sleep(draw.random() * _MAX_PAUSE_S)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def remove(tree: Tree) -> None:
    """Remove everything that belongs to a tree."""
    for folder in (*map(tree.place, PLACES), *(tree.roots.scratch / "hidden").glob(f"{tree.number}-*")):
        shutil.rmtree(folder, ignore_errors=True)
