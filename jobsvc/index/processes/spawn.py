"""Start and kill child processes of the service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE, Process
from typing import Final

from jobsvc.storage.processes import child_command

MAX_STDERR_BYTES: Final = 300
"""Maximum number of bytes of standard error that `kill` returns."""


async def spawn(module: str, *arguments: str, nice: int = 0) -> Process:
    """Run a module of this package, from where it was imported, with pipes for its standard streams.

    Nothing is imported from the current directory, which others may be able to write to: `-P` keeps it off
    sys.path, relative entries of PYTHONPATH are dropped, and the process runs in "/". Paths in `arguments`
    must be absolute. `nice` lowers the priority, with setpriority(2).
    """
    process = await asyncio.create_subprocess_exec(
        *child_command.command(module), *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE,
        env=child_command.environment(), cwd=child_command.CWD,
    )  # fmt: skip
    if nice:
        with contextlib.suppress(OSError):  # it has exited, or a sandbox forbids it
            os.setpriority(os.PRIO_PROCESS, process.pid, nice)
    return process


async def kill(process: Process) -> str:
    """Kill a process, wait up to 2 s for its exit, and return the end of its standard error.

    A process that hangs in the kernel exits later. A cancelled caller waits too: once the loop is closed,
    nothing would close the process's pipes or take its exit status.
    """
    killing = asyncio.create_task(_kill(process))
    try:
        return await asyncio.shield(killing)
    except asyncio.CancelledError:
        await asyncio.wait({killing})
        raise


async def _kill(process: Process) -> str:
    if process.returncode is None:
        # Process.kill() may take the exit status from asyncio, which then reports 255.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        process.stdin.close()
    stderr = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            _, stderr = await process.communicate()  # reads to the end of its pipes, which are then closed
    return stderr[-MAX_STDERR_BYTES:].decode("utf-8", "replace").strip()
