"""A real Redis server on a free port of the loopback address."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.programs.ports import free_port
from tests.programs.restartable_server import RestartableServer


@dataclass
class RedisServer(RestartableServer):
    """A server that can be stopped, paused and started again on its port; its data is lost each time."""

    options: tuple[str, ...] = ()
    tls: bool = False

    @property
    def url(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """Return the command that runs it."""
        ports = ["--port", "0", "--tls-port"] if self.tls else ["--port"]
        command = ["redis-server", *ports, str(self.port), "--bind", "127.0.0.1", "--save", ""]
        return [*command, "--appendonly", "no", "--dir", str(self.folder), *self.options]

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
