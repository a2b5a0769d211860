"""Runs external programs as their users run them."""

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
"""Far more than any of them needs on a busy host."""


SEARCH_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Debian has administrators' programs outside the PATH of other users."""


def without_coverage() -> dict[str, str]:
    """Return an environment without coverage, for a process of another user that may not write its data."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip a test if one of the programs is not on the PATH; `.ci/run` installs them all."""
    missing = [program for program in programs if shutil.which(program, path=SEARCH_PATH) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@dataclass(frozen=True, slots=True)
class CompletedProgram:
    """Exit code and output of a program."""

    exit_code: int
    stdout: bytes
    stderr: str


async def run(program: str, *words: object, folder: Path | None = None) -> CompletedProgram:
    """Run a program to its end, without a terminal, a proxy or settings of a home directory."""
    async with running_program(program, *words, folder=folder, capture=True) as process:
        async with asyncio.timeout(DEADLINE_S):
            output, said = await process.communicate()
    assert process.returncode is not None
    return CompletedProgram(process.returncode, output, said.decode(errors="replace"))


@asynccontextmanager
async def running_program(
    program: str, *words: object, folder: Path | None = None, capture: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program during a block; then kill it and everything that it started."""
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
