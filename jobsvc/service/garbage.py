"""The collector of cyclic garbage, kept from going through every job there is: none is part of a cycle.

A full collection stops the whole process, for a second where there are a million jobs. It comes whenever the
old objects have grown by a quarter: again and again while the first index is made.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

RARELY: Final = 1000
"""A full collection comes after so many times 7,000 new objects: a million jobs make 600 times as many."""


def spare_the_jobs() -> Callable[[], None]:
    """Have full collections come rarely until the returned function is called, once the jobs are all there.

    From then on they come as before, and leave alone what was there at that call.
    """
    before = gc.get_threshold()
    gc.set_threshold(*before[:2], RARELY)

    def as_before() -> None:
        gc.freeze()
        gc.set_threshold(*before)

    return as_before
