"""Processes of the service's own: how one is begun, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Final

import jobsvc

LAST_WORDS: Final = 300
"""Bytes."""


async def begin(module: str, *arguments: str, nice: int = 0) -> Process:
    """Run a module of this very package, wherever it was imported from, with pipes to and from it.

    `nice` puts it behind others, by setpriority(2).
    """
    here = str(Path(jobsvc.__file__).parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    if nice:
        with contextlib.suppress(OSError):  # it has ended, or a sandbox forbids it
            os.setpriority(os.PRIO_PROCESS, process.pid, nice)
    return process


async def end(process: Process) -> str:
    """Kill, and wait for the end, but not for ever: a process that hangs in the kernel dies when it can.

    Returns the last that it said on standard error.
    """
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    if process.stdin is not None:
        process.stdin.close()
    words = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            _, words = await process.communicate()  # to the end of its pipes, which are then closed
    return words[-LAST_WORDS:].decode("utf-8", "replace").strip()
