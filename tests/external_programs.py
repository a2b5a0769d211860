"""Programs that others wrote, run as their users run them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

DEADLINE_S: Final = 40.0
"""Seconds; far more than any of them needs, on a machine that is busy with other things."""


SEARCH_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Debian has the programs of administrators outside the PATH of other users."""


def without_coverage() -> dict[str, str]:
    """Return the environment for a process of another user, who may not write what coverage would measure."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip a test where one of the programs is not on the PATH; `.ci/run` installs them all."""
    missing = [program for program in programs if shutil.which(program, path=SEARCH_PATH) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@dataclass(frozen=True, slots=True)
class CompletedProgram:
    """How a program ended."""

    exit_code: int
    stdout: bytes
    stderr: str
    """What came on standard error."""


async def run(program: str, *words: object, folder: Path | None = None) -> CompletedProgram:
    """Run a program to its end; it has no terminal, no proxy, and no settings of anyone's home."""
    async with running_program(program, *words, folder=folder, capture=True) as process:
        async with asyncio.timeout(DEADLINE_S):
            output, said = await process.communicate()
    assert process.returncode is not None
    return CompletedProgram(process.returncode, output, said.decode(errors="replace"))


@asynccontextmanager
async def running_program(
    program: str, *words: object, folder: Path | None = None, capture: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Have a program run for the length of a block; then it and what it started is ended by force."""
    unset = ("HOME", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "XDG_CONFIG_HOME")
    environment = {
        name: value for name, value in os.environ.items() if name not in {*unset, *map(str.upper, unset)}
    }
    pipe = asyncio.subprocess.PIPE if capture else asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        program,
        *map(str, words),
        cwd=folder,
        env={**environment, "HOME": "/nonexistent"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
