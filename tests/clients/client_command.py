"""Runs client commands against a service as a user does: as processes, with or without a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.programs.external_programs import DEADLINE_S, CompletedProgram
from tests.programs.service_runner import PROJECT, Service

PROGRAM: Final = (sys.executable, "-m", "jobsvc")


class ClientCommand:
    """Runs commands in a directory, with the URL and the token of a service in the environment."""

    def __init__(self, port: int, token: str | None, folder: Path) -> None:
        """`folder` is the working directory; the home directory is empty."""
        self.folder = folder
        self.token = token
        self.port = port

    @classmethod
    def of(cls, service: Service, folder: Path) -> ClientCommand:
        """Use a service and its token."""
        return cls(service.port, service.token, folder)

    def through(self, port: int) -> ClientCommand:
        """Use a proxy in front of the same service."""
        return ClientCommand(port, self.token, self.folder)

    async def run(self, *words: object, **variables: str) -> CompletedProgram:
        """Run a command to its end without a terminal."""
        async with self.running(*words, variables=variables) as process:
            async with asyncio.timeout(DEADLINE_S):
                output, said = await process.communicate()
        assert process.returncode is not None
        return CompletedProgram(process.returncode, output, said.decode())

    @asynccontextmanager
    async def running(
        self, *words: object, stdout: int | None = None, variables: Mapping[str, str] | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a command during a block; then it is killed. `stdout` is a descriptor instead of a pipe."""
        pipe = asyncio.subprocess.PIPE
        process = await self._start(
            words, dict(variables or {}), stdout=pipe if stdout is None else stdout, stderr=pipe
        )
        try:
            yield process
        finally:
            await _kill(process)

    async def run_on_terminal(
        self, *words: object, columns: int = 80, results_too: bool = False, **variables: str
    ) -> CompletedProgram:
        """Run a command with standard error on a terminal; with `results_too` standard output as well."""
        master, terminal = pty.openpty()
        try:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            stdout = terminal if results_too else asyncio.subprocess.PIPE
            process = await self._start(
                words, {"TERM": "xterm-256color", **variables}, stdout=stdout, stderr=terminal
            )
        finally:
            os.close(terminal)
        try:
            async with asyncio.timeout(DEADLINE_S):
                shown, (output, _) = await asyncio.gather(
                    asyncio.to_thread(_read_all, master), process.communicate()
                )
        finally:
            await _kill(process)
            os.close(master)
        assert process.returncode is not None
        return CompletedProgram(process.returncode, output or b"", shown.decode())

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of commands."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("JOBSVC_", "XDG_")) and not name.lower().endswith("_proxy")
        }
        return {
            **inherited,
            "HOME": str(self.folder / "home"),
            "PYTHONPATH": str(PROJECT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "JOBSVC_URL": f"http://127.0.0.1:{self.port}",
            "JOBSVC_TOKEN": self.token or "",
            **variables,
        }

    async def _start(
        self, words: tuple[object, ...], variables: dict[str, str], **streams: Any
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *PROGRAM,
            *map(str, words),
            cwd=self.folder,
            env=self.environment(**variables),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            **streams,
        )


async def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _read_all(master: int) -> bytes:
    """Read from a terminal until its last user has closed it."""
    received = b""
    with suppress(OSError):  # EIO: closed
        while data := os.read(master, 1 << 16):
            received += data
    return received
