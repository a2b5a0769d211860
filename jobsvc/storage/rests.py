"""A thread's work on very many things, with rests in which others have the interpreter.

A thread that never waits lets the event loop have it every 5 ms only, each time that the loop asks for it
again: several times a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import sleep
from typing import Final, TypeVar

T = TypeVar("T")

PART: Final = 2000
"""Things between two rests, where nothing else is said: a millisecond or two of names to check."""
REST: Final = 0.001
"""Seconds."""


def in_parts(things: Sequence[T], part: int = PART) -> Iterator[Sequence[T]]:
    """Go through things a part at a time, with a rest before each part but the first; not on the loop."""
    for start in range(0, len(things), part):
        if start:
            sleep(REST)
        yield things[start : start + part]
