"""Storage that hangs or answers with faults, for all that the service asks of it; the farm writes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

from jobsvc.storage.jobs import reader, root_listing, stat_check

ASKED: Final = frozenset({"open", "stat", "scandir", "listdir", "access"})
"""What the service calls to ask the storage about jobs."""


class Weather:
    """What these modules take for `os`."""

    def __init__(self) -> None:
        self._fault: int | None = None
        self._calm = threading.Event()
        self._calm.set()
        self._farm = threading.get_ident()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Have nothing answered for the length of the block; then all of it."""
        self._calm.clear()
        try:
            yield
        finally:
            self._calm.set()

    @contextmanager
    def failing(self, number: int) -> Iterator[None]:
        """Have everything answered with this error for the length of the block."""
        self._fault = number
        try:
            yield
        finally:
            self._fault = None

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return real if name not in ASKED else lambda *args, **kwargs: self._ask(real, *args, **kwargs)

    def _ask(self, real: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == self._farm:
            return real(*args, **kwargs)
        self._calm.wait(20)
        if self._fault is not None:
            raise OSError(self._fault, os.strerror(self._fault))
        return real(*args, **kwargs)


@contextmanager
def weather() -> Iterator[Weather]:
    """Put weather between the service and the storage of its jobs for the length of the block."""
    with ExitStack() as patches:
        weather = Weather()
        for module in (reader, stat_check, root_listing):
            patches.enter_context(patch.object(module, "os", weather))
        yield weather
