"""Detects calls that may block on the thread of a running loop: blockbuster, and functions that it misses.

Each is raised where it happens and also recorded, so that no `except` can hide it. Direct calls of a test
itself are allowed: the test acts as the farm or as another process.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Final, Self

import aiohttp
import blockbuster.blockbuster as engine
import coverage
import pytest
from blockbuster import BlockBuster, BlockBusterFunction, BlockingError

import jobsvc

TESTS: Final = str(Path(__file__).parents[1])
SCANNED: Final = (*jobsvc.__path__, *aiohttp.__path__)
"""Packages whose calls are checked, including everything that they call."""
COVERAGE: Final = str(Path(coverage.__file__).parent)
NOT_SCANNED: Final = ["aiohttp.test_utils", "aiohttp.pytest_plugin"]

ADDITIONAL_FUNCTIONS: Final = (
    *("builtins.open", "io.open", "os.open", "os.close", "os.fstat", "os.lstat", "os.scandir", "os.utime"),
    *("os.pread", "os.preadv", "os.pwrite", "os.ftruncate", "os.fsync", "os.fdatasync", "os.chmod"),
)
"""Functions that may wait for storage and that blockbuster does not know."""

ALLOWED_CALLERS: Final[dict[str, list[tuple[str, Iterable[str]]]]] = {
    "os.fstat": [
        ("jobsvc/web/jobs/file_access.py", {"_in_memory"}),
        ("jobsvc/index/catalogue/freshness.py", {"_check_nowait"}),
    ],
    "os.preadv": [("jobsvc/web/jobs/file_access.py", {"_in_memory"})],
    "os.open": [("asyncio/base_events.py", {"subprocess_exec"})],
    "os.close": [
        ("asyncio/base_events.py", {"subprocess_exec"}),
        ("jobsvc/web/jobs/file_access.py", {"_in_memory"}),
        ("jobsvc/index/catalogue/freshness.py", {"_check_nowait"}),
    ],
    "os.lstat": [("coverage/files.py", {"abs_file"})],
    "io.open": [("asyncio/base_events.py", {"subprocess_exec"})],
}
"""Callers that touch only pipes, devices or kernel memory, or belong to coverage measurement: file, and
functions in it.
"""

_ASYNC: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class BlockingCallDetector:
    """Detects blocking calls during one test."""

    def __init__(self) -> None:
        self.blocking_calls: list[str] = []
        """Each blocking call with its stack."""
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Self:
        self._patch.setattr(engine, "BlockingError", self._record)
        _blockbuster().activate()  # for the whole session: wrapping the functions takes some milliseconds
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()

    def _record(self, call: str) -> BlockingError:
        self.blocking_calls.append(
            f"Blocking call to {call}\n" + "".join(traceback.format_stack(limit=12)[:-2])
        )
        return BlockingError(call)


@cache
def _blockbuster() -> BlockBuster:
    watch = BlockBuster(["jobsvc", "aiohttp"], excluded_modules=NOT_SCANNED)
    # It knows the iterator of os.scandir by this name.
    watch.functions["os.scandir.__next__"] = watch.functions.pop("os.scandir")
    # The loop's own sendfile reads the file on the loop's thread, which it finds harmless.
    watch.functions["os.sendfile"].can_block_functions.clear()
    for name in ADDITIONAL_FUNCTIONS:
        watch.functions[name] = BlockBusterFunction(
            None,
            name,
            scanned_modules=["jobsvc", "aiohttp"],
            excluded_modules=NOT_SCANNED,
            can_block_functions=list(ALLOWED_CALLERS.get(name, ())),
        )
    for function in watch.functions.values():
        # Before anyone can connect, files of our own package may be read.
        function.can_block_functions.append(("jobsvc/service/app_factory.py", {"build_app"}))
        function.can_block_predicate = _allow_test_code(function.can_block_predicate)
    return watch


def _allow_test_code(harmless: Callable[..., bool]) -> Callable[..., bool]:
    # Most calls are harmless ones of non-blocking sockets; walking the stack for each takes longer.
    return lambda *args, **kwargs: harmless(*args, **kwargs) or _called_by_test(sys._getframe())


def _called_by_test(frame: FrameType | None) -> bool:
    """Return whether the outermost checked function on the stack is a plain function that a test called
    directly.

    Also True if the call belongs to the coverage tool.
    """
    outermost = None
    while frame is not None:
        if frame.f_code.co_filename.startswith(COVERAGE):
            return True  # coverage reads source files when it first sees them
        if frame.f_code.co_filename.startswith(SCANNED):
            outermost = frame
        frame = frame.f_back
    if outermost is None or outermost.f_back is None or outermost.f_code.co_flags & _ASYNC:
        return False
    return outermost.f_back.f_code.co_filename.startswith(TESTS)
