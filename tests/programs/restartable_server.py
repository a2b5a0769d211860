"""A real server on a port of the loopback address, which tests end and start again."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.eventually import wait_until
from tests.programs.external_programs import SEARCH_PATH
from tests.programs.ports import accepts

START_TIMEOUT_S: Final = 20.0


@dataclass
class RestartableServer:
    """A server that can be ended and started again on its port."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def command(self) -> list[str]:
        """Return the command that runs it."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        command = self.command()
        log = self.folder / f"{command[0]}.log"
        with log.open("ab") as output:
            self._process = process = subprocess.Popen(
                command,
                env={**os.environ, "PATH": SEARCH_PATH},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_until(lambda: accepts(self.port) or process.poll() is not None, START_TIMEOUT_S)
        assert process.poll() is None, log.read_text()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
