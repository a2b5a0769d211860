"""A real Redis server on a free port of the loopback address."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.eventually import wait_until
from tests.programs.external_programs import SEARCH_PATH
from tests.programs.free_port import free_port

START_TIMEOUT_S: Final = 20.0


@dataclass
class RedisServer:
    """A server that can be stopped, paused and started again on its port; its data is lost each time."""

    folder: Path
    port: int
    options: tuple[str, ...] = ()
    tls: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        ports = ["--port", "0", "--tls-port"] if self.tls else ["--port"]
        command = ["redis-server", *ports, str(self.port), "--bind", "127.0.0.1", "--save", ""]
        with (self.folder / "redis.log").open("ab") as output:
            self._process = process = subprocess.Popen(
                [*command, "--appendonly", "no", "--dir", str(self.folder), *self.options],
                env={**os.environ, "PATH": SEARCH_PATH},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_until(lambda: _accepts(self.port) or process.poll() is not None, START_TIMEOUT_S)
        assert process.poll() is None, (self.folder / "redis.log").read_text()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it hang: it accepts connections and responds to nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(folder: Path, *options: str, tls: bool = False) -> Iterator[RedisServer]:
    """Run a Redis server during a block; `options` are those of redis-server, with `tls` its certificate."""
    server = RedisServer(folder, free_port(), options, tls)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
