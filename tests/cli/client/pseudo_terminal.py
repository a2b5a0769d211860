"""Runs client commands on a pseudo-terminal, as a person does."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from tests.cli.client.conftest import variables
from tests.programs.service_runner import PROJECT, Process


class Terminal:
    """A running command, and what the terminal received."""

    def __init__(self, process: subprocess.Popen[bytes], controller: int) -> None:
        self.received = b""
        self._process, self._controller = process, controller
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._controller, text.encode())

    def wait(self) -> int:
        """Wait for the end of the command and of its output; return the exit code."""
        code = self._process.wait(30)
        self._reader.join(30)
        return code

    def _read(self) -> None:
        try:
            while data := os.read(self._controller, 65536):
                self.received += data
        except OSError:  # EIO: the command has ended
            pass


@contextmanager
def run_on_terminal(
    service: Process, *words: str, columns: int = 80, **environment: str
) -> Iterator[Terminal]:
    """Run a client command whose three standard streams are a terminal."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "jobsvc", *words],
        cwd=PROJECT,
        env={**os.environ, **variables(service), **environment},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        yield Terminal(process, controller)
    finally:
        process.kill()
        process.wait()
        os.close(controller)
