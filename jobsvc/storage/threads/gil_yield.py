"""A thread's work on very many things, with rests in which others have the interpreter.

A thread that never waits lets the event loop have it every 5 ms only, each time that the loop asks for it
again: several times a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from time import sleep
from typing import Final, TypeVar

T = TypeVar("T")

GIL_PAUSE_S: Final = 0.001
"""Seconds."""


def chunks_yielding_gil(things: Iterable[T], part: int) -> Iterator[list[T]]:
    """Go through things a part at a time, with a rest before each part but the first; not on the loop."""
    source = iter(things)
    taken = list(islice(source, part))
    while taken:
        yield taken
        if taken := list(islice(source, part)):
            sleep(GIL_PAUSE_S)
