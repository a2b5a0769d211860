"""Makes storage calls of the service hang or fail, while the farm's calls work."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

from jobsvc.storage.jobs import reader, record_reader, root_listing, stat_check

INTERCEPTED: Final = frozenset({"open", "stat", "scandir", "listdir", "access"})
"""The calls by which the service reads job directories."""


class FaultyOs:
    """Replaces `os` in the storage modules."""

    def __init__(self) -> None:
        self._errno: int | None = None
        self._released = threading.Event()
        self._released.set()
        self._farm_thread_id = threading.get_ident()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Make all calls hang during the block; then let all of them continue."""
        self._released.clear()
        try:
            yield
        finally:
            self._released.set()

    @contextmanager
    def failing(self, number: int) -> Iterator[None]:
        """Make all calls fail with this errno during the block."""
        self._errno = number
        try:
            yield
        finally:
            self._errno = None

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return real if name not in INTERCEPTED else lambda *args, **kwargs: self._call(real, *args, **kwargs)

    def _call(self, real: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == self._farm_thread_id:
            return real(*args, **kwargs)
        self._released.wait(20)
        if self._errno is not None:
            raise OSError(self._errno, os.strerror(self._errno))
        return real(*args, **kwargs)


@contextmanager
def storage_faults() -> Iterator[FaultyOs]:
    """Install a FaultyOs between the service and its storage during the block."""
    with ExitStack() as patches:
        faulty_os = FaultyOs()
        for module in (reader, record_reader, stat_check, root_listing):
            patches.enter_context(patch.object(module, "os", faulty_os))
        yield faulty_os
